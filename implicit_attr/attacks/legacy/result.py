"""A network as published attacks ask for it, and what they report."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from implicit_attr import similarity
from implicit_attr.similarity import magnitude
from implicit_attr.types import ApplyFn, Array, Explain, Params


class Network(NamedTuple):
  """A network, its smooth surrogate, and the maps that are asked of it."""

  apply_fn: ApplyFn
  params: Params
  methods: Mapping[str, Callable[..., Array]]  # attribution.METHODS
  smooth_fn: Callable[..., tuple[Array, dict]] | None = None
  """(params, x, beta=) -> (logits, out), softplus for ReLU; None if the
  network is smooth already: then it is its own surrogate."""

  def predict(self, x: Array) -> Array:
    return self.apply_fn(self.params, x)[0]

  def label(self, x: Array) -> Array:
    return jnp.argmax(self.predict(x), -1)

  def smooth(self, beta: float | Array) -> ApplyFn:
    smooth = self.smooth_fn
    if smooth is None:
      return self.apply_fn
    return lambda params, x: smooth(params, x, beta=beta)

  def explain(
    self,
    method: str,
    target: str,
    options: dict[str, Any],
    beta: float | Array | None = None,
  ) -> Explain:
    """The map of the network, or with a `beta` of its surrogate."""
    apply_fn = self.apply_fn if beta is None else self.smooth(beta)
    fun = self.methods[method]
    return lambda x, y: fun(
      apply_fn, self.params, x, y, target=target, **options
    )


class LegacyResult(NamedTuple):
  """What a published protocol found and would have reported; B examples."""

  x_adv: Array  # [B, H, W, C]
  kept: Array  # [B] bool, does x_adv have the label of x?
  failed: Array  # [B] bool, was no image found that the code would accept?
  counted: Array  # [B] bool, did the example enter the published mean?
  topk: Array  # [B], top-k intersection by the code's own k and tie order
  kendall: Array  # [B], Kendall's tau-b
  attempts: Array  # [attempts, B], what each attempt was worth by itself

  @property
  def n(self) -> Array:
    """Examples in the published mean; []."""
    return jnp.sum(self.counted)

  @property
  def dropped(self) -> Array:
    """Examples left out of it; []."""
    return jnp.sum(~self.counted)

  def mean(self, name: str) -> Array:
    """Mean of 'topk' or 'kendall' as published: over `counted` alone; []."""
    return jnp.mean(getattr(self, name), where=self.counted)


def last_k(a: Array, k: int | float) -> Array:
  """The k largest as the end of an ascending stable sort: of two equal entries
  the one with the larger index comes in; [B, H, W] -> bool [B, H, W].

  `np.argsort(a)[-k:]` does so if told to be stable; by default its order on
  ties depends on NumPy's version and on the processor.
  """
  flat = a.reshape(a.shape[0], -1)
  return similarity.top_mask(flat[:, ::-1], k)[:, ::-1].reshape(a.shape)


def compare(
  a: Array, b: Array, k: int | float, *, last: bool
) -> tuple[Array, Array]:
  """(top-k intersection, Kendall's tau-b) of signed maps; [B] both.

  `last` breaks ties as `last_k`.
  """
  a, b = magnitude(a), magnitude(b)
  tau = similarity.kendall_tau(a, b)
  if last:
    a, b = (m.reshape(m.shape[0], -1)[:, ::-1] for m in (a, b))
  return similarity.topk_intersection(a, b, k), tau
