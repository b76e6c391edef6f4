"""Does a program compile once, in the background, and fail where it is used?"""

import jax
import jax.numpy as jnp
import pytest

from implicit_attr import errors
from implicit_attr.runtime import programs


def test_a_program_is_traced_once_however_often_prepared_and_called():
  traces = []

  def fun(x):
    traces.append(1)
    return 2 * x

  program = programs.Program(fun)
  x = jnp.arange(3.0)
  program.prepare(x)
  program.prepare(x)
  program.wait()
  assert [float(v) for v in program(x + 1)] == [2.0, 4.0, 6.0]
  program(x)
  assert len(traces) == 1


def test_what_compiling_raised_is_raised_by_the_call():
  def fun(x):
    raise errors.InputError('x is wrong')

  program = programs.Program(fun)
  program.prepare(jnp.zeros(2))
  with pytest.raises(errors.InputError, match='x is wrong'):
    program(jnp.zeros(2))


def test_a_donated_argument_is_given_away_by_the_call_not_by_preparing():
  program = programs.Program(lambda x: x + 1, donate_argnums=0)
  x = jnp.zeros(4)
  program.prepare(x)
  program.wait()
  assert not x.is_deleted()
  program(x)
  assert x.is_deleted()


def test_quick_is_a_setting_of_xla_and_an_unknown_effort_is_refused():
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  try:
    programs.set_effort('quick')
    assert jax.config.read(name)
    programs.set_effort('full')
    assert not jax.config.read(name)
  finally:
    jax.config.update(name, before)
  with pytest.raises(errors.InputError, match='compile'):
    programs.set_effort('fast')
