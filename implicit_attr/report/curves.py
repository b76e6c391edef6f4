"""What moved during training? One small panel a quantity, over the updates."""

import dataclasses
import pathlib

import numpy as np

from implicit_attr.report import canvas
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.read import Run


@dataclasses.dataclass(frozen=True)
class Curve:
  """One line of a panel: a key of metrics.jsonl, maybe with a half-width."""

  key: str
  label: str
  colour: str
  error: str = ''
  dash: str = '-'
  factor: float = 1.0


def draw(run: Run, folder: pathlib.Path) -> dict[str, Exhibit]:
  """Draws every panel that the metrics allow; PNGs go to `folder`.

  Returns exhibits by section: training, parameter, input_logit, input_loss,
  confounders.
  """
  drawn = lambda *panels: tuple(
    image for panel in panels if (image := _panel(run, folder, *panel))
  )
  loss = loss_unit(run)
  edge = edge_name(run)
  exhibits = {
    'training': Exhibit(
      'Loss and accuracy',
      'The mean loss of an example and the share of examples that the network '
      'labels rightly. A gap between training and test is what it learned '
      f'of its training examples only.{_marks_note(run)}',
      drawn(
        ('loss', 'Loss', f'loss [{loss}]' if loss else 'loss', _TRAINING[0]),
        ('accuracy', 'Accuracy', 'accuracy [%]', _TRAINING[1]),
      ),
    ),
    'parameter': Exhibit(
      'Curvature of the loss in the parameters',
      f'First: the largest eigenvalue of the loss Hessian against {edge}, the '
      'value above which a step of that length overshoots. Full-batch descent '
      'is known to climb to that line (arXiv 2103.00065), batch sharpness to '
      'do so with small batches (arXiv 2412.20553), and both to fall again '
      'where a cross-entropy saturates. Second: the sum of all eigenvalues. '
      'Shaded: the residual of the eigenvalue, and one standard error of an '
      'estimate. All are measured before the update: on a fixed set of '
      'training images, and batch sharpness on a few fixed batches.',
      drawn(
        (
          'sharpness',
          'Sharpness',
          'curvature [loss / parameter²]',
          (
            Curve('param/edge', edge, canvas.INK, dash='--'),
            Curve(
              'param/batch_sharpness',
              'batch sharpness',
              canvas.ORANGE,
              'param/batch_sharpness_se',
            ),
            Curve(
              'param/lambda_max',
              'λ_max',
              canvas.BLUE,
              'param/lambda_max_residual',
            ),
          ),
        ),
        (
          'trace',
          'Trace of the Hessian',
          'trace [loss / parameter²]',
          (Curve('param/trace', '', canvas.BLUE, 'param/trace_se'),),
        ),
      ),
    ),
    'confounders': Exhibit(
      'What else could explain it',
      'The norm of the first layer multiplies the bounds from parameter to '
      'input curvature (proved for dense first layers; where weights are '
      'shared, as in convolutions, it is only a suspect), and large logits '
      'flatten a cross-entropy without flattening the network. A curvature '
      'that moves together with one of these explains nothing by itself.',
      drawn(*_CONFOUNDERS),
    ),
  }
  for target, unit in (('logit', 'logit'), ('loss', 'loss')):
    prefix = 'input' if target == 'logit' else 'input_loss'
    what = (
      'the logit of the label'
      if target == 'logit'
      else 'the loss of an example'
    )
    exhibits[f'input_{target}'] = Exhibit(
      f'Curvature in the image, of {what}',
      f'How steep {what} is in the pixels, how fast that slope turns, and the '
      'ratio of the two: the turn of the explanation relative to its size, '
      'which no rescaling of the network changes. Means over the probe '
      'images; a pixel runs from 0 (black) to 1 (full).',
      drawn(
        *(
          (
            f'{prefix}_{name}',
            title,
            label.format(unit=unit),
            (Curve(f'{prefix}/{name}', '', canvas.BLUE),),
          )
          for name, title, label in _INPUT
        )
      ),
    )
  return {
    name: dataclasses.replace(exhibit, missing='nothing of it was logged')
    for name, exhibit in exhibits.items()
  }


_TRAINING = (
  (
    Curve('train/loss', 'training batches', canvas.SKY),
    Curve('eval/train_loss', 'training set', canvas.ORANGE),
    Curve('eval/loss', 'test set', canvas.BLUE),
  ),
  (
    Curve('train/accuracy', 'training batches', canvas.SKY, factor=100),
    Curve('eval/train_accuracy', 'training set', canvas.ORANGE, factor=100),
    Curve('eval/accuracy', 'test set', canvas.BLUE, factor=100),
  ),
)
_INPUT = (
  ('grad_norm', 'Gradient norm ‖g‖', '‖g‖ [{unit} / pixel]'),
  ('lambda_max', 'Hessian norm ‖H‖', '‖H‖ [{unit} / pixel²]'),
  (
    'normalized_curvature',
    'Normalised curvature ‖H‖ / ‖g‖',
    '‖H‖ / ‖g‖ [1 / pixel]',
  ),
)
_CONFOUNDERS = (
  (
    'first_layer',
    'First-layer norm ‖W₁‖',
    'spectral norm',
    (Curve('param/w1_norm', '', canvas.BLUE),),
  ),
  (
    'first_layer_bound',
    '‖W₁‖² λ_max',
    '‖W₁‖² λ_max [loss / pixel²]',
    (
      Curve('align/w1_sq_lambda', '‖W₁‖² λ_max in θ', canvas.BLUE),
      Curve('align/mean_input_lambda', 'λ_max of mean H in x', canvas.ORANGE),
    ),
  ),
  (
    'logit_scale',
    'Logit scale',
    'std over classes [logit]',
    (Curve('logit/scale', '', canvas.BLUE),),
  ),
  (
    'margin',
    'Margin',
    'label minus runner-up [logit]',
    (Curve('logit/margin', '', canvas.BLUE),),
  ),
)


def loss_unit(run: Run) -> str:
  """The unit of the training loss, from its name in the config."""
  name = str(run.setting('loss.name', ''))
  return 'nats' if 'entropy' in name else 'squared error' if name else ''


def edge_name(run: Run) -> str:
  """The stability threshold as a formula: with momentum it is higher."""
  return '2(1+β)/η' if run.setting('optim.momentum', 0) else '2/η'


def _panel(
  run: Run,
  folder: pathlib.Path,
  name: str,
  title: str,
  ylabel: str,
  curves: tuple[Curve, ...],
) -> Image | None:
  """Draws the curves that have a finite value; None if none has."""
  axes, seen = None, []
  for curve in curves:
    steps, values, *errors = run.series(
      curve.key, *([curve.error] if curve.error else [])
    )
    if not np.isfinite(values).any():
      continue
    if axes is None:
      axes = canvas.panel(title, 'updates', ylabel)
    values = curve.factor * values
    seen.append(values)
    sparse = values.size <= 40
    mark = 'o' if sparse and curve.dash == '-' else None
    axes.plot(
      steps, values, curve.dash, color=curve.colour, marker=mark,
      label=canvas.maths(curve.label) or None, lw=1.4 if sparse else 1.0,
    )  # fmt: skip
    for error in errors:
      axes.fill_between(
        steps, values - error, values + error,
        color=curve.colour, alpha=0.2, lw=0,
      )  # fmt: skip
  if axes is None:
    return None
  canvas.fit_scale(axes.yaxis, np.concatenate(seen))
  if axes.get_yscale() == 'linear' and min(map(np.nanmin, seen)) >= 0:
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top + 0.04 * top)
  if name in ('loss', 'accuracy'):
    for step in milestones(run):
      axes.axvline(step, lw=0.8, ls=':', color=canvas.GREY, zorder=0)
  for event in run.events:
    if event['event'] == 'diverged':
      axes.axvline(event['step'], lw=0.8, color=canvas.VERMILLION, zorder=0)
  if any(curve.dash == '--' for curve in curves):  # room for a legend above
    bottom, top = axes.get_ylim()
    log = axes.get_yscale() == 'log'
    axes.set_ylim(top=top * (top / bottom) ** 0.4 if log else 1.4 * top)
  axes.locator_params(axis='x', nbins=5)
  if any(curve.label for curve in curves):
    axes.legend()
  return canvas.save(
    axes.figure, folder, name, f'{title}: {ylabel}, over the updates'
  )


def milestones(run: Run) -> list[int]:
  """The updates at which a run can be compared with others before its end."""
  return sorted(
    {
      evaluation.step
      for name, evaluation in run.evaluations.items()
      if name != 'last' and isinstance(evaluation.step, int)
    }
  )


def _marks_note(run: Run) -> str:
  note = ''
  if milestones(run):
    note += ' Dotted: where milestones of Table 1 were reached.'
  if any(event['event'] == 'diverged' for event in run.events):
    note += ' Red: where the run diverged.'
  return note
