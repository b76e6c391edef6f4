"""How robust are a network's maps, and what stands beside that number?

For every attribution and checkpoint: the attack, a random-sign perturbation of
the same size, a faithfulness number and, where the data set knows the truth,
the share of the map inside it; each a mean over examples with an interval.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from implicit_attr import attribution, errors
from implicit_attr.evaluation import robustness
from implicit_attr.evaluation.spectrum import spectrum
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.runtime.progress import Progress
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.scoring import Scorer
from implicit_attr.types import Tree

CHECKPOINTS = ('last', 'train_loss', 'test_accuracy')
"""Arms are compared at a fixed duration, and where each first reached a train
loss and a test accuracy: three orders that may differ, which is a result."""


def check(config: dict[str, Any]) -> None:
  """Raises InputError for a value in `evaluation` that is not allowed."""
  settings = config['evaluation']
  robustness.check(settings, 'evaluation.')
  for name in settings['attributions']:
    errors.require(
      'evaluation.attributions', name,
      config['model']['name'] == 'vit'
      or name not in attribution.ATTENTION_METHODS,
      "a map of pixels, unless model.name='vit': it reads attention",
    )  # fmt: skip
  for name in settings['checkpoints']:
    errors.choose('evaluation.checkpoints', name, CHECKPOINTS)
  names = settings['checkpoints']
  errors.require(
    'evaluation.checkpoints', names, 'last' in names, "a list with 'last'"
  )
  errors.number('evaluation.curvature', settings['curvature'], 0, integer=True)
  errors.number('evaluation.examples', settings['examples'], 1, integer=True)


def make_robustness(
  experiment: Experiment,
  bind: Callable[..., Experiment] | None = None,
  **over: Any,
) -> robustness.Robustness:
  """The attacks of a config, for params that are (params, model_state).

  Args:
    bind: values -> the experiment of a lane, where params end with `values`.
    **over: `spread` and `lead` of `Robustness`, where there are lanes.
  """
  bind = bind or (lambda: experiment)
  settings = dict(experiment.config['evaluation'])
  n = min(settings['examples'], len(experiment.test_set))
  # Attention maps read the tokens that the network itself reads.
  readout = experiment.config['model'].get('readout', 'cls')
  settings['options'] = {
    **settings['options'],
    **{
      name: {'readout': readout, **settings['options'].get(name, {})}
      for name in attribution.ATTENTION_METHODS
    },
  }

  def apply_fn(variables, x):
    params, model_state, *values = variables
    return frozen(bind(*values).module, model_state)(params, x)

  def smooth_fn(variables, x, beta):
    params, model_state, *values = variables
    smooth = bind(*values).smooth_apply_fn(model_state)
    return smooth(params, x, beta=beta)

  return robustness.Robustness(
    apply_fn, experiment.test_batch(n), settings, experiment.mesh,
    smooth_fn if experiment.smooth_apply_fn({}) else None, **over,
  )  # fmt: skip


def evaluate(experiment: Experiment, workdir: pathlib.Path) -> None:
  """Writes evaluation/<checkpoint>.json and .npz for each that there is.

  'last' falls back on the newest checkpoint of an interrupted run.

  Raises:
    InputError: there is no checkpoint at all, or one is damaged.
  """
  states = find_all(experiment, workdir)
  scorer, attack = Scorer(experiment), make_robustness(experiment)
  by_step = {}  # two milestones are often the same step
  progress = Progress('attack', 0, attack.jobs * len(states))
  for done, (name, state) in enumerate(states.items()):
    step = int(state.step)
    if step not in by_step:
      state = experiment.mesh.replicate(state)
      rows, arrays = [], {}
      for found in attack((state.params, state.model_state)):
        rows += found[0]
        arrays |= found[1]
        progress.say(done * attack.jobs + len(rows) // 2)
      by_step[step] = scorer(state), rows, arrays
    write(experiment, workdir, name, state, *by_step[step])


def write(
  experiment: Experiment,
  workdir: pathlib.Path,
  name: str,
  state: State,
  scores: dict[str, float],
  rows: list[dict],
  arrays: dict[str, Any],
) -> None:
  """The files of one checkpoint, its spectrum included where asked for."""
  step = int(state.step)
  clean = {key.removeprefix('eval/'): v for key, v in scores.items()}
  clean['n'] = len(experiment.test_set)
  value = {
    'checkpoint': name, 'step': step, 'clean': clean, 'rows': rows,
    'settings': experiment.config['evaluation'],
  }  # fmt: skip
  # The JSON says that there is an evaluation: it goes first and comes last.
  path = workdir / 'evaluation' / f'{name}.json'
  records.remove(path)
  records.write_arrays(path.with_suffix('.npz'), arrays)
  records.write_json(path, value)
  if examples := experiment.config['evaluation']['curvature']:
    numbers, arrays = spectrum(experiment, state, examples)
    path = workdir / 'spectrum' / f'{name}.json'
    records.write_json(path, {'checkpoint': name, 'step': step, **numbers})
    records.write_arrays(path.with_suffix('.npz'), arrays)


def find_all(experiment: Experiment, workdir: pathlib.Path) -> dict[str, State]:
  """The states of a run that its config wants evaluated, by their names.

  Raises:
    InputError: there is none, or one is damaged.
  """
  names = experiment.config['evaluation']['checkpoints']
  states = {n: s for n in names if (s := find(experiment, workdir, n))}
  errors.require(
    '--workdir', str(workdir), states,
    f'a run that has one of the checkpoints {", ".join(names)}',
  )  # fmt: skip
  return states


def find(
  experiment: Experiment, workdir: pathlib.Path, name: str
) -> State | None:
  """The state of checkpoint `name`, on the host; None if there is none."""
  folder, like = workdir / 'checkpoints', experiment.like()
  state = _restore(folder / name, {'state': like})
  if state is None and name == 'last':
    content = {'state': like, 'memory': like.params}
    state = _restore(folder / 'rolling', content)
  return state


def _restore(folder: pathlib.Path, like: Tree) -> State | None:
  """The newest state under `folder`; None if there is no such checkpoint."""
  if not folder.exists():
    return None
  kept = Checkpoints(folder, keep=None)
  try:
    steps = kept.steps()
    return kept.restore(steps[-1], like)[0]['state'] if steps else None
  finally:
    kept.close()
