"""Links of the chain across the runs of a sweep: curvature and robustness."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from implicit_attr import claims
from implicit_attr.report import canvas, heat, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.colours import Shades
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.report.tables import by


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A number of a run, its name, its unit, and the key it was logged by."""

  name: str
  unit: str
  of: Callable[[Trial], float]
  key: str = ''

  @property
  def label(self) -> str:
    """Of an axis."""
    return f'{self.name} [{self.unit}]' if self.unit else self.name


def _end(key: str, name: str = '', unit: str = '') -> Quantity:
  of = lambda trial: trial.ends.get(key, math.nan)
  return Quantity(name or key, unit, of, key)


SHARPNESS = _end('param/lambda_max', 'λ_max', 'loss / parameter²')
TRACE = _end('param/trace', 'Trace of the Hessian', 'loss / parameter²')
BOUND = _end('align/w1_sq_lambda', '‖W₁‖² λ_max', 'loss / pixel²')
OF_LOGIT = _end('input/lambda_max', '‖H‖ of the logit', 'logit / pixel²')
OF_LOSS = _end('input_loss/lambda_max', '‖H‖ of the loss', 'loss / pixel²')
NORMALISED = _end(
  'input/normalized_curvature', '‖H‖ / ‖g‖ of the logit', '1 / pixel'
)
MEAN_INPUT = _end(
  'align/mean_input_lambda', 'λ_max of mean H in x', 'loss / pixel²'
)
ENTROPY = _end('attention/entropy_ratio', 'Entropy over its maximum')
ROWS = (
  (
    _end('attention/spread_floor', 'Least entropy at this spread', 'nat'),
    _end('attention/entropy', 'Entropy', 'nat'),
  ),
  (
    _end('attention/gap_cap', 'Most that a gap can be'),
    _end('attention/gap', 'Gap of the k-th weight'),
  ),
)
"""What theory says of rows of attention, and what they are."""

KNOWN = (
  SHARPNESS, TRACE, BOUND, OF_LOGIT, OF_LOSS, NORMALISED, MEAN_INPUT, ENTROPY,
  *ROWS[0], *ROWS[1],
)  # fmt: skip
"""What has a name on the page; everything else goes by its key."""


def kept(tree: Tree, name: str | None) -> Quantity:
  """Top-k of the map `name` kept under attack, at fixed duration."""
  means = heat.kept_of(tree, name) if name else {}
  return Quantity(
    f'top-k kept, {tables.plain(name or "")}', '',
    lambda trial: means.get(trial.name, math.nan),
  )  # fmt: skip


def draw_curvature(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """Parameter curvature against three input curvatures, a point a run."""
  return _exhibit(
    tree, folder, 'link_curvature',
    [(SHARPNESS, y) for y in (OF_LOGIT, OF_LOSS, NORMALISED)],
    'Parameter curvature against input curvature',
    'Each point is a run at its end. The second link of the chain says that '
    'points lie on a rising line. ρ is Spearman’s rank correlation over all '
    'points of the panel and mixes networks.',
    'parameter and input curvature were not logged together',
  )  # fmt: skip


def draw_robustness(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """Input curvature against the top-k kept of the leading map."""
  target = kept(tree, tree.leading())
  return _exhibit(
    tree, folder, 'link_robustness',
    [(x, target) for x in (NORMALISED, OF_LOGIT, SHARPNESS)],
    'Curvature against robustness',
    'Each point is a run; up is more robust. The third link says that points '
    'fall to the right. A cloud without direction says that this curvature '
    'does not tell which network has the more robust map.',
    'no run has both a curvature and an evaluation',
  )  # fmt: skip


def draw_bound(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """λ_max of the mean input Hessian against two ceilings, with y = x."""
  pairs = [(BOUND, MEAN_INPUT), (OF_LOSS, MEAN_INPUT)]
  return _exhibit(
    tree, folder, 'link_bound', pairs,
    'The bound from parameter to input curvature',
    'For a dense first layer, and for patches with learned positions, theory '
    'proves that no point lies above the dashed line: λ_max of the mean input '
    'Hessian of the loss is at most ‖W₁‖² λ_max. (Where weights are shared, '
    'as in convolutions, the line is only a scale to compare with.) A point '
    'far below it says that the bound is loose there and explains little. For '
    'any network it is at most the mean of ‖H‖ over images, up to the '
    'tolerance of both estimates: what lies between is curvature that points '
    f'elsewhere from image to image.{_looseness(tree, pairs)}',
    'the two sides were not logged',
    diagonal=True,
  )  # fmt: skip


def draw_entropy(tree: Tree, folder: pathlib.Path) -> Exhibit | None:
  """Attention entropy against robustness of attention maps; None without."""
  names = dict.fromkeys(
    r['map'] for r in tree.records if r['family'] == 'attention'
  )
  if not names and not any(np.isfinite(ENTROPY.of(t)) for t in tree.trials):
    return None
  rows = _exhibit(
    tree, folder, 'link_rows', ROWS, '',
    ' Against a dashed line: no row of weights that spreads so far has less '
    'entropy, so points lie above; none of that entropy and spread has a '
    'k-th weight further over the next, so they lie below. Far from it the '
    f'bound says little.{_looseness(tree, ROWS)}', '', diagonal=True,
  )  # fmt: skip
  maps = _exhibit(
    tree, folder, 'link_entropy',
    [(ENTROPY, kept(tree, name)) for name in list(names)[:4]],
    'Entropy of attention against robustness of its maps',
    'Entropy 1 is attention spread evenly over all tokens, 0 is all on one. '
    'The paper blames the softmax’ hold on entropy for maps that gain nothing; '
    'then points under softmax would not rise however entropy moves, and those '
    'under kernels would.',
    'no run has both attention entropy (attention/*) and an attention map',
  )  # fmt: skip
  return dataclasses.replace(
    maps,
    caption=maps.caption + (rows.caption if rows.images else ''),
    images=maps.images + rows.images,
  )


def correlations(tree: Tree) -> tables.Table | None:
  """Spearman of whatever was logged with top-k kept, by family, as they come
  and with learning rate and batch size held fixed; None without any.

  Curvatures come first, then the other keys of metrics.jsonl.
  """
  target = kept(tree, tree.leading())
  keys = dict.fromkeys(key for trial in tree.trials for key in trial.ends)
  others = [_end(key) for key in keys if key not in {q.key for q in KNOWN}]
  rows = []
  for family, trials in tree.families.items():
    for quantity in (*KNOWN, *others):
      data = np.array(
        [[quantity.of(t), target.of(t), t.lr, t.batch] for t in trials]
      )
      data = data[np.isfinite(data).all(1)]
      if len(data) < 4 or not np.ptp(data[:, 0]):
        continue
      rhos = [
        claims.partial_spearman(data[:, 0], data[:, 1], given)
        for given in (data[:, :0], data[:, 2:])
      ]
      cells = [(family,), (quantity.name,), *map(_estimate, rhos)]
      rows.append(([*cells, (str(len(data)),)], False))
  head = ['Network, data, loss', 'Logged', 'ρ with top-k kept',
          'lr and batch held fixed', 'runs']  # fmt: skip
  return tables.Table(head, rows) if rows else None


def _estimate(rho: claims.Estimate) -> tuple[str, ...]:
  if not math.isfinite(rho.value):
    return ('–',)
  return tables.estimate({'mean': rho.value, **rho._asdict()})


def _looseness(tree: Tree, pairs: Sequence[tuple[Quantity, Quantity]]) -> str:
  """How many times a bound what it bounds is, by family, as a sentence."""
  said = ''
  for bound, measured in pairs:
    parts = []
    for family, trials in tree.families.items():
      ratios = [bound.of(t) / measured.of(t) for t in trials if measured.of(t)]
      ratios = [r for r in ratios if math.isfinite(r) and r > 0]
      if ratios:
        parts.append(f'{family} {tables.short(float(np.median(ratios)), 2)}')
    if parts:
      names = f'{bound.name} over {measured.name}'
      said += f' Median of {names}: {"; ".join(parts)}.'
  return said


def _exhibit(
  tree: Tree, folder: pathlib.Path, name: str,
  pairs: Sequence[tuple[Quantity, Quantity]], title: str, caption: str,
  missing: str, diagonal: bool = False,
) -> Exhibit:  # fmt: skip
  shades = Shades([trial.family for trial in tree.trials])
  images = (
    _panel(tree, folder, f'{name}_{i}', x, y, shades, diagonal)
    for i, (x, y) in enumerate(pairs)
  )
  return Exhibit(title, caption, tuple(i for i in images if i), missing)


def _panel(
  tree: Tree, folder: pathlib.Path, name: str, x: Quantity, y: Quantity,
  shades: Shades, diagonal: bool,
) -> Image | None:  # fmt: skip
  known = [t for t in tree.trials if math.isfinite(x.of(t) + y.of(t))]
  if len(known) < 2:
    return None
  axes = canvas.panel('', x.label, y.label, height=3.1)
  for family, trials in by(known, lambda trial: trial.family).items():
    axes.scatter(
      [x.of(t) for t in trials], [y.of(t) for t in trials], s=16, lw=0.3,
      ec='white', color=shades.colour(family), marker=shades.mark(family),
      zorder=2, label=f'_{family}',
    )  # fmt: skip
  a, b = (np.array([q.of(t) for t in known]) for q in (x, y))
  if diagonal:
    # Many points: straight in one scale is a curve in another.
    line = np.linspace(a.min(), a.max(), 100)
    axes.plot(line, line, '--', color=canvas.INK, lw=1, zorder=1)
  canvas.fit_scale(axes.xaxis, a)
  canvas.fit_scale(axes.yaxis, b)
  rho, text = (
    claims.partial_spearman(a, b, np.zeros((len(a), 0))),
    'not defined',
  )
  if math.isfinite(rho.value):
    text = f'= {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]'
  text = text.replace('-0.00', '0.00').replace('-', '−')
  text = f'ρ {text}, n = {rho.n}'
  axes.set_title(text, loc='right', fontsize=8.5)
  shades.legend(axes, [t.family for t in known])
  return canvas.save(
    axes.figure, folder, name, f'{y.label} against {x.label}; Spearman {text}'
  )
