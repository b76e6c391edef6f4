"""Curves of a run: everything that was logged, over the updates.

One small panel a quantity. Known ones come in sections, with names and units;
whatever else is in metrics.jsonl or probes/*.npz follows under its own key.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

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


Section = tuple[str, str, list[Panel]]
"""Title, caption and panels."""

Probes = dict[int, dict[str, np.ndarray]]
"""Step -> arrays, as `reading.probes` has them."""


def draw(run: Run, probes: Probes, folder: pathlib.Path) -> dict[str, list]:
  """Draws all panels that there are numbers for; PNGs go to `folder`.

  Returns:
    Exhibits by section: training, parameter, input, confounders, and others,
    of all the keys that no other section shows.
  """
  between = quartiles(probes)
  sections = {
    'training': [_training(run)], 'parameter': [_parameter(run)],
    'input': [_input('input', 'the logit of the predicted class', 'logit'),
              _input('input_loss', 'the loss of an example', 'loss')],
    'confounders': [_confounders()],
  }  # fmt: skip
  shown = {
    key
    for those in sections.values()
    for *_, panels in those
    for panel in panels
    for curve in panel.curves
    for key in (curve.key, curve.error)
  }
  keys = dict.fromkeys([*run.ends, *between])
  # A milestone is an event of the page.
  rest = [k for k in keys if k not in shown and not k.startswith('milestone/')]
  sections['others'] = [_others(rest)]
  exhibit = lambda title, caption, panels: Exhibit(
    title, caption,
    tuple(i for p in panels if (i := _panel(run, between, p, folder))),
    'nothing of it was logged',
  )  # fmt: skip
  return {
    name: [exhibit(*section) for section in those]
    for name, those in sections.items()
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
  return {key: np.array(steps, float).T for key, steps in rows.items()}


def _one(
  name: str, title: str, ylabel: str, key: str, error: str = ''
) -> Panel:
  return Panel(name, title, ylabel, (Curve(key, error=error),))


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
  name = str(run.setting('loss.name', ''))
  unit = ' [nats]' if 'entropy' in name else ' [squared error]' if name else ''
  panels = [
    Panel('loss', 'Loss', f'loss{unit}', lines('loss')),
    Panel('accuracy', 'Accuracy', 'accuracy [%]', lines('accuracy', 100.0)),
  ]
  return 'Loss and accuracy', caption, panels


def _parameter(run: Run) -> Section:
  edge = summary.edge_name(run)
  sharpness = (
    Curve('param/edge', edge, canvas.INK, dash='--'),
    Curve('param/batch_sharpness', 'batch sharpness', canvas.ORANGE,
          error='param/batch_sharpness_se'),
    Curve('param/lambda_max', 'λ_max', error='param/lambda_max_residual'),
  )  # fmt: skip
  return (
    'Curvature of the loss in the parameters',
    f'First: the largest eigenvalue of the loss Hessian against {edge}, the '
    'value above which a step of that length overshoots. Full-batch descent is '
    'known to climb to that line (arXiv 2103.00065), batch sharpness to do so '
    'with small batches (arXiv 2412.20553), and both to fall again where a '
    'cross-entropy saturates. Second: the sum of all eigenvalues. Shaded: the '
    'residual of the eigenvalue, and one standard error of an estimate. All '
    'are measured before the update: on a fixed set of training images, and '
    'batch sharpness on a few fixed batches.',
    [
      Panel(
        'sharpness', 'Sharpness', 'curvature [loss / parameter²]', sharpness
      ),
      _one('trace', 'Trace of the Hessian', 'trace [loss / parameter²]',
           'param/trace', 'param/trace_se'),
    ],
  )  # fmt: skip


def _input(prefix: str, what: str, unit: str) -> Section:
  names = {
    'grad_norm': ('Gradient norm ‖g‖', f'‖g‖ [{unit} / pixel]'),
    'lambda_max': ('Hessian norm ‖H‖', f'‖H‖ [{unit} / pixel²]'),
    'normalized_curvature': (
      'Normalised curvature ‖H‖ / ‖g‖', '‖H‖ / ‖g‖ [1 / pixel]'
    ),
  }  # fmt: skip
  return (
    f'Curvature in the image, of {what}',
    f'How steep {what} is in the pixels, how fast that slope turns, and the '
    'ratio of the two: the turn of the explanation relative to its size, which '
    'no rescaling of the network changes. Means over the probe images, and '
    'shaded the middle half of them; a pixel runs from 0 (black) to 1 (full).',
    [
      _one(f'{prefix}_{name}', *texts, f'{prefix}/{name}')
      for name, texts in names.items()
    ],
  )


def _confounders() -> Section:
  bound = (
    Curve('align/w1_sq_lambda', '‖W₁‖² λ_max in θ'),
    Curve('align/mean_input_lambda', 'λ_max of mean H in x', canvas.ORANGE),
  )
  return (
    'What else could explain it',
    'The norm of the first layer multiplies the bounds from parameter to input '
    'curvature (proved for dense first layers; where weights are shared, as in '
    'convolutions, it is only a suspect), and large logits flatten a '
    'cross-entropy without flattening the network. A curvature that moves '
    'together with one of these explains nothing by itself. Shaded: the middle '
    'half of the images.',
    [
      _one('first_layer', 'First-layer norm ‖W₁‖', 'spectral norm',
           'param/w1_norm'),
      Panel('first_layer_bound', '‖W₁‖² λ_max', '‖W₁‖² λ_max [loss / pixel²]',
            bound),
      _one('logit_scale', 'Logit scale', 'std over classes [logit]',
           'logit/scale'),
      _one('margin', 'Margin', 'label minus runner-up [logit]', 'logit/margin'),
    ],
  )  # fmt: skip


def _others(keys: Sequence[str]) -> Section:
  """A panel for each of `keys`, which nothing is known of."""
  plain = lambda key: re.sub('[^A-Za-z0-9]+', '_', key)
  return (
    'What else was logged, or kept in probes/*.npz',
    'By its key and as it is, without a unit. Shaded: the middle half of what '
    'a mean was taken of, single images or the heads of all layers.',
    [_one(f'logged_{i}_{plain(k)}', k, '', k) for i, k in enumerate(keys)],
  )


def _panel(
  run: Run, between: dict[str, np.ndarray], panel: Panel, folder: pathlib.Path
) -> Image | None:
  """Draws the curves that have a finite value; None if none has."""
  curves = [c for c in panel.curves if c.key in run.ends or c.key in between]
  if not curves:
    return None
  axes = canvas.panel(panel.title, 'updates', panel.ylabel)
  means, lows = [], []
  for curve in curves:
    steps, values, error = run.series(curve.key, curve.error)
    values = curve.factor * values
    means.append(values)
    sparse = values.size <= 40
    axes.plot(
      steps, values, curve.dash, color=curve.colour,
      marker='o' if sparse and curve.dash == '-' else None,
      label=canvas.maths(curve.label) or None, lw=1.4 if sparse else 1.0,
    )  # fmt: skip
    bands: list[Any] = [(steps, values - error, values + error)]
    if curve.key in between:
      bands.append(between[curve.key])
      lows.append(between[curve.key][1])
    for band in bands:
      axes.fill_between(*band, color=curve.colour, alpha=0.2, lw=0)
  if all((low > 0).all() for low in lows):
    canvas.fit_scale(axes.yaxis, np.concatenate(means))
  log = axes.get_yscale() == 'log'
  if not log and np.nanmin(np.concatenate(means + lows)) >= 0:
    axes.set_ylim(0, 1.04 * axes.get_ylim()[1])
  if panel.name in ('loss', 'accuracy'):
    for step in milestones(run):
      axes.axvline(step, lw=0.8, ls=':', color=canvas.GREY, zorder=0)
  for event in run.events:
    if event['event'] == 'diverged':
      axes.axvline(event['step'], lw=0.8, color=canvas.VERMILLION, zorder=0)
  if any(curve.dash == '--' for curve in panel.curves):  # room for a legend
    bottom, top = axes.get_ylim()
    axes.set_ylim(top=top * (top / bottom) ** 0.4 if log else 1.4 * top)
  axes.locator_params(axis='x', nbins=5)
  if any(curve.label for curve in panel.curves):
    axes.legend()
  alt = f'{panel.title}: {panel.ylabel or panel.title}, over the updates'
  return canvas.save(axes.figure, folder, panel.name, alt)


def milestones(run: Run) -> list[int]:
  """The updates at which a run can be compared with others before its end."""
  return sorted({
    evaluation.step
    for name, evaluation in run.evaluations.items()
    if name != 'last' and evaluation.step is not None
  })  # fmt: skip
