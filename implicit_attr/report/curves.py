"""Curves of a run: everything that was logged, over the updates.

One small panel a quantity. Known ones come in sections, with names and units;
whatever else is in metrics.jsonl or probes/*.npz follows under its own key.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from implicit_attr.report import canvas, summary
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Run


@dataclasses.dataclass(frozen=True)
class Curve:
  """One line of a panel: a key of metrics.jsonl, maybe with a half-width."""

  key: str
  label: str = ''
  colour: str = canvas.BLUE
  error: str = ''
  dash: str = '-'
  factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Panel:
  """Curves on common axes; `name` is that of the file."""

  name: str
  title: str
  ylabel: str
  curves: tuple[Curve, ...]


Section = tuple[str, str, tuple[Panel, ...]]
"""Title, caption and panels; '{edge}' and '{loss}' stand for those of a run."""

Probes = dict[int, dict[str, np.ndarray]]
"""Step -> arrays, as `reading.probes` has them."""


def draw(run: Run, probes: Probes, folder: pathlib.Path) -> dict[str, list]:
  """Draws all panels that there are numbers for; PNGs go to `folder`.

  Returns:
    Exhibits by section: training, parameter, input, confounders, and others,
    of all the keys that no other section shows.
  """
  between = quartiles(probes)
  words = {'edge': summary.edge_name(run), 'loss': loss_unit(run)}
  known = {
    'training': [_training(run)], 'parameter': [_PARAMETER],
    'input': [_input('input', 'the logit of the label', 'logit'),
              _input('input_loss', 'the loss of an example', 'loss')],
    'confounders': [_CONFOUNDERS],
  }  # fmt: skip
  shown = {
    key
    for sections in known.values()
    for *_, panels in sections
    for panel in panels
    for curve in panel.curves
    for key in (curve.key, curve.error)
  }
  rest = [
    key
    for key in dict.fromkeys([*run.ends, *between])
    if key not in shown and not key.startswith('milestone/')
  ]
  exhibit = lambda title, caption, panels: Exhibit(
    title,
    caption.format(**words),
    tuple(
      image
      for panel in panels
      if (image := _panel(run, between, words, panel, folder))
    ),
    'nothing of it was logged',
  )
  return {
    name: [exhibit(*section) for section in sections]
    for name, sections in (known | {'others': [_others(rest)]}).items()
  }


def quartiles(probes: Probes) -> dict[str, np.ndarray]:
  """Name of an array -> [3, n]: steps, its lower and its upper quartile."""
  rows: dict[str, list] = {}
  for step, arrays in sorted(probes.items()):
    for key, values in arrays.items():
      if key != 'index' and values.dtype.kind in 'fiu':
        values = values[np.isfinite(values)]
        if values.size:
          ends = np.quantile(values, (0.25, 0.75))
          rows.setdefault(key, []).append((step, *ends))
  return {key: np.array(found, float).T for key, found in rows.items()}


def _training(run: Run) -> Section:
  caption = (
    'The mean loss of an example and the share of examples that the network '
    'labels rightly. A gap between training and test is what it learned of its '
    'training examples only.'
  )
  if milestones(run):
    caption += ' Dotted: where milestones of Table 1 were reached.'
  if any(event['event'] == 'diverged' for event in run.events):
    caption += ' Red: where the run diverged.'
  lines = lambda of, factor=1.0: (
    Curve(f'train/{of}', 'training batches', canvas.SKY, factor=factor),
    Curve(f'eval/train_{of}', 'training set', canvas.ORANGE, factor=factor),
    Curve(f'eval/{of}', 'test set', factor=factor),
  )
  return (
    'Loss and accuracy',
    caption,
    (
      Panel('loss', 'Loss', 'loss{loss}', lines('loss')),
      Panel('accuracy', 'Accuracy', 'accuracy [%]', lines('accuracy', 100.0)),
    ),
  )


_SHARPNESS = (
  Curve('param/edge', '{edge}', canvas.INK, dash='--'),
  Curve(
    'param/batch_sharpness', 'batch sharpness', canvas.ORANGE,
    'param/batch_sharpness_se',
  ),
  Curve('param/lambda_max', 'λ_max', error='param/lambda_max_residual'),
)  # fmt: skip
_PARAMETER: Section = (
  'Curvature of the loss in the parameters',
  'First: the largest eigenvalue of the loss Hessian against {edge}, the value '
  'above which a step of that length overshoots. Full-batch descent is known '
  'to climb to that line (arXiv 2103.00065), batch sharpness to do so with '
  'small batches (arXiv 2412.20553), and both to fall again where a '
  'cross-entropy saturates. Second: the sum of all eigenvalues. Shaded: the '
  'residual of the eigenvalue, and one standard error of an estimate. All are '
  'measured before the update: on a fixed set of training images, and batch '
  'sharpness on a few fixed batches.',
  (
    Panel(
      'sharpness', 'Sharpness', 'curvature [loss / parameter²]', _SHARPNESS
    ),
    Panel(
      'trace', 'Trace of the Hessian', 'trace [loss / parameter²]',
      (Curve('param/trace', error='param/trace_se'),),
    ),
  ),
)  # fmt: skip


def _input(prefix: str, what: str, unit: str) -> Section:
  panel = lambda name, title, ylabel: Panel(
    f'{prefix}_{name}', title, ylabel, (Curve(f'{prefix}/{name}'),)
  )
  return (
    f'Curvature in the image, of {what}',
    f'How steep {what} is in the pixels, how fast that slope turns, and the '
    'ratio of the two: the turn of the explanation relative to its size, which '
    'no rescaling of the network changes. Means over the probe images, and '
    'shaded the middle half of them; a pixel runs from 0 (black) to 1 (full).',
    (
      panel('grad_norm', 'Gradient norm ‖g‖', f'‖g‖ [{unit} / pixel]'),
      panel('lambda_max', 'Hessian norm ‖H‖', f'‖H‖ [{unit} / pixel²]'),
      panel(
        'normalized_curvature', 'Normalised curvature ‖H‖ / ‖g‖',
        '‖H‖ / ‖g‖ [1 / pixel]',
      ),
    ),
  )  # fmt: skip


_BOUND = (
  Curve('align/w1_sq_lambda', '‖W₁‖² λ_max in θ'),
  Curve('align/mean_input_lambda', 'λ_max of mean H in x', canvas.ORANGE),
)
_CONFOUNDERS: Section = (
  'What else could explain it',
  'The norm of the first layer multiplies the bounds from parameter to input '
  'curvature (proved for dense first layers; where weights are shared, as in '
  'convolutions, it is only a suspect), and large logits flatten a '
  'cross-entropy without flattening the network. A curvature that moves '
  'together with one of these explains nothing by itself. Shaded: the middle '
  'half of the images.',
  (
    Panel(
      'first_layer', 'First-layer norm ‖W₁‖', 'spectral norm',
      (Curve('param/w1_norm'),),
    ),
    Panel(
      'first_layer_bound', '‖W₁‖² λ_max', '‖W₁‖² λ_max [loss / pixel²]', _BOUND
    ),
    Panel(
      'logit_scale', 'Logit scale', 'std over classes [logit]',
      (Curve('logit/scale'),),
    ),
    Panel(
      'margin', 'Margin', 'label minus runner-up [logit]',
      (Curve('logit/margin'),),
    ),
  ),
)  # fmt: skip


def _others(keys: Sequence[str]) -> Section:
  """A panel for each of `keys`, which nothing is known of."""
  panels = (
    Panel(
      f'logged_{i}_{re.sub("[^A-Za-z0-9]+", "_", key)}', key, '', (Curve(key),)
    )
    for i, key in enumerate(keys)
  )
  return (
    'What else was logged, or kept in probes/*.npz',
    'By its key and as it is, without a unit. Shaded: the middle half of what '
    'a mean was taken of, single images or the heads of all layers.',
    tuple(panels),
  )


def loss_unit(run: Run) -> str:
  """' [unit]' of the training loss, from its name in the config."""
  name = str(run.setting('loss.name', ''))
  return ' [nats]' if 'entropy' in name else ' [squared error]' if name else ''


def _panel(
  run: Run, between: dict[str, np.ndarray], words: dict[str, str],
  panel: Panel, folder: pathlib.Path,
) -> Image | None:  # fmt: skip
  """Draws the curves that have a finite value; None if none has."""
  curves = [c for c in panel.curves if c.key in run.ends or c.key in between]
  if not curves:
    return None
  ylabel = panel.ylabel.replace('{loss}', words['loss'])
  axes = canvas.panel(panel.title, 'updates', ylabel)
  means, lows = [], []
  for curve in curves:
    steps, values, error = run.series(curve.key, curve.error)
    values = curve.factor * values
    means.append(values)
    sparse = values.size <= 40
    axes.plot(
      steps, values, curve.dash, color=curve.colour,
      marker='o' if sparse and curve.dash == '-' else None,
      label=canvas.maths(curve.label.replace('{edge}', words['edge'])) or None,
      lw=1.4 if sparse else 1.0,
    )  # fmt: skip
    bands = [(steps, values - error, values + error)]
    if curve.key in between:
      bands.append(between[curve.key])
      lows.append(between[curve.key][1])
    for band in bands:
      axes.fill_between(*band, color=curve.colour, alpha=0.2, lw=0)
  canvas.fit_scale(axes.yaxis, np.concatenate(means))
  seen = np.concatenate(means + lows)
  if axes.get_yscale() == 'linear' and np.nanmin(seen) >= 0:
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top + 0.04 * top)
  if panel.name in ('loss', 'accuracy'):
    for step in milestones(run):
      axes.axvline(step, lw=0.8, ls=':', color=canvas.GREY, zorder=0)
  for event in run.events:
    if event['event'] == 'diverged':
      axes.axvline(event['step'], lw=0.8, color=canvas.VERMILLION, zorder=0)
  if any(curve.dash == '--' for curve in panel.curves):  # room for a legend
    bottom, top = axes.get_ylim()
    log = axes.get_yscale() == 'log'
    axes.set_ylim(top=top * (top / bottom) ** 0.4 if log else 1.4 * top)
  axes.locator_params(axis='x', nbins=5)
  if any(curve.label for curve in panel.curves):
    axes.legend()
  return canvas.save(
    axes.figure, folder, panel.name,
    f'{panel.title}: {ylabel}, over the updates',
  )  # fmt: skip


def milestones(run: Run) -> list[int]:
  """The updates at which a run can be compared with others before its end."""
  return sorted({
    evaluation.step
    for name, evaluation in run.evaluations.items()
    if name != 'last' and evaluation.step is not None
  })  # fmt: skip
