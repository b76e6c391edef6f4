"""Scores of attribution maps: how like two are, how faithful one is."""

from collections.abc import Callable

from implicit_attr import attribution, numerics, similarity
from implicit_attr.types import ApplyFn, Array, Batch, Params


def _ssim(a: Array, b: Array, k: float) -> Array:
  """Of the shares of the pixels; the window is 11, or fits a smaller map."""
  small = min(a.shape[1:])
  shares = similarity.mass(a), similarity.mass(b)
  return similarity.ssim(*shares, window=min(11, small - 1 + small % 2))


MORE: dict[str, Callable[[Array, Array, float], Array]] = {
  'ssim': _ssim,
  'lens_recall': similarity.lens_recall,
}
"""Similarities by option: (a, b, k) -> [B], of magnitudes [B, H, W]."""


def similar(
  k: float, more: tuple[str, ...], x: Array, clean: Array, changed: Array
) -> dict[str, Array]:
  """How like two maps of the images `x` are: name -> [B].

  Ranks and sets are of the channel-summed absolute map, cosines of the signed
  one. A map of tokens is laid on the pixels for what needs places.

  Args:
    k: share of the pixels in a top-k set.
    more: names in `MORE`, beside the five that are always there.
  """
  with numerics.exact():
    ranked = similarity.magnitude(clean), similarity.magnitude(changed)
    values = {
      'topk': similarity.topk_intersection(*ranked, k),
      'kendall': similarity.kendall_tau(*ranked),
      'spearman': similarity.spearman(*ranked),
      'cosine': similarity.cosine(clean, changed),
      'pearson': similarity.pearson(clean, changed),
    }
    before, after = ranked
    if more and clean.ndim == 2:
      before, after = (attribution.token_pixels(a, x) for a in ranked)
    return values | {name: MORE[name](before, after, k) for name in more}


def faithful(
  apply_fn: ApplyFn, params: Params, batch: Batch, y: Array, a: Array
) -> dict[str, Array]:
  """What a map `a` for the classes `y` says by itself: name -> [B]."""
  x, pixels = batch['image'], a
  with numerics.exact():
    if a.ndim == 2:  # ranked as it is compared: by its absolute value
      pixels = attribution.token_pixels(similarity.magnitude(a), x)
    values = {
      'deletion_auc': attribution.deletion_auc(apply_fn, params, x, y, pixels),
      'entropy': attribution.entropy(a),
    }
    if 'mask' in batch:
      values['mask_mass'] = attribution.mask_mass(pixels, batch['mask'])
  return values
