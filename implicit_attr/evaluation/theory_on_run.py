"""Theory on a run: its checks on random networks and on a trained one."""

import pathlib

import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, theory
from implicit_attr.evaluation import evaluate
from implicit_attr.runs import records
from implicit_attr.train import State, experiment, frozen

EXAMPLES = 8


def check(workdir: pathlib.Path | None) -> str:
  """The table of all checks and, where `workdir` is a run, a second one.

  Writes theory.json, and theory_network.json for the run's last state, over
  its first few examples for testing. A network on images of more than 1024
  pixel values has no second table, and the text says so.

  Raises:
    InputError: `workdir` is no run with a checkpoint, or cannot be written.
  """
  if workdir is None:
    return theory.run(None)
  built = experiment.build(records.continued(workdir, None))
  state = evaluate.find(built, workdir, 'last')
  errors.require(
    '--workdir', str(workdir), state is not None, 'a run with a checkpoint'
  )
  assert state is not None
  all_of_them = theory.run(workdir)
  network = _of_network(built, state, workdir)
  return f'{all_of_them}\n\nThe network of {workdir.name}:\n{network}'


def _of_network(
  built: experiment.Experiment, state: State, workdir: pathlib.Path
) -> str:
  batch = built.test_batch(EXAMPLES)
  x, y = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  if np.prod(x.shape[1:]) > theory.LARGEST:
    return f'not checked: images of more than {theory.LARGEST} pixel values'
  return theory.run_on(
    frozen(built.module, state.model_state), state.params, x, y,
    scale=float(1 / np.min(built.module.std)), workdir=workdir,
  )  # fmt: skip
