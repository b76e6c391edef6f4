"""Evaluation of trained networks: robustness of maps, scores and spectra.

For every attribution and checkpoint: the attack, a random-sign perturbation of
the same size, a faithfulness number and, where the data set knows the truth,
the share of the map inside it; each a mean over examples with an interval.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from implicit_attr import attribution, errors
from implicit_attr.evaluation import certificates, robustness
from implicit_attr.evaluation.sanity import Explain, Sanity
from implicit_attr.evaluation.spectrum import Spectrum
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.runtime.progress import Progress
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.scoring import Scorer
from implicit_attr.types import Tree


def check(experiment: Experiment) -> None:
  """Raises InputError for a map that this network cannot have.

  Every map and attack is traced for its shapes, so that what they refuse is
  refused before the first step.
  """
  for name in experiment.settings.evaluation.attributions:
    errors.require(
      'evaluation.attributions', name,
      experiment.attends or name not in attribution.ATTENTION_METHODS,
      'a map of pixels: the network gives no attention',
    )  # fmt: skip
  state = experiment.like()
  attack = make_robustness(Lanes.of([experiment]))
  attack.check((state.params, state.model_state, {}))


def make_robustness(lanes: Lanes) -> robustness.Robustness:
  """The attacks of a config, for params (params, model_state, values)."""
  template = lanes.template
  settings = template.settings.evaluation
  n = min(settings.examples, len(template.test_set))

  def apply_fn(variables, x):
    params, model_state, values = variables
    return frozen(lanes.bind(values).module, model_state)(params, x)

  def smooth_fn(variables, x, beta):
    params, model_state, values = variables
    smooth: Any = lanes.bind(values).smooth_apply_fn(model_state)
    return smooth(params, x, beta=beta)

  # Attention maps read the tokens that the network itself reads.
  readout = {'readout': template.readout}
  options = {
    name: {**readout, **settings.options.get(name, {})}
    for name in attribution.ATTENTION_METHODS
  }
  return robustness.Robustness(
    apply_fn, template.test_batch(n), settings, template.mesh,
    smooth_fn if template.smooth_apply_fn({}) else None,
    options={**settings.options, **options},
    spread=lanes.spread, lead=lanes.lead,
  )  # fmt: skip


def evaluate(
  lanes: Lanes,
  workdirs: Sequence[pathlib.Path],
  scorer: Scorer | None = None,
  known: Sequence[Mapping[str, State]] = (),
) -> None:
  """Writes evaluation/<checkpoint>.json and .npz for each that there is.

  'last' falls back on the newest checkpoint of an interrupted run. A run may
  have up to three states, of different steps. They are measured in rounds; in
  a round that is beyond a lane's last state it has its first.

  Args:
    scorer: the one of the training, so that nothing compiles twice.
    known: states on the host that need not be read again, for each lane.

  Raises:
    InputError: there is no checkpoint at all, or one is damaged.
  """
  states = [
    find_all(e, workdir, dict(mine))
    for e, workdir, mine in zip(
      lanes.experiments, workdirs, known or [{}] * len(lanes), strict=True
    )
  ]
  # Two milestones are often the same step.
  distinct = [
    list({int(s.step): s for s in mine.values()}.values()) for mine in states
  ]
  scorer, attack = scorer or Scorer(lanes), make_robustness(lanes)
  rounds = max(map(len, distinct))
  progress = Progress('attack', 0, attack.jobs * rounds)
  results: list[dict[int, tuple]] = [{} for _ in workdirs]
  for turn in range(rounds):
    here = [s[turn] if turn < len(s) else s[0] for s in distinct]
    state = lanes.template.mesh.replicate(lanes.stack(here))
    variables = state.params, state.model_state, lanes.values
    attack.prepare(variables)
    scores = scorer(state)
    for i, one in enumerate(here):
      results[i][int(one.step)] = scores[i], [], {}
    for job, part in enumerate(attack.measured(variables), start=1):
      name, objective, examples = part
      for i, one in enumerate(here):
        mine = lanes.take(examples, i)
        rows, arrays = attack.table(name, objective, mine)
        results[i][int(one.step)][1].extend(rows)
        results[i][int(one.step)][2].update(arrays)
      progress.say(turn * attack.jobs + job)
  for e, workdir, mine, result in zip(
    lanes.experiments, workdirs, states, results, strict=True
  ):
    _write(e, workdir, mine, result)


def _write(
  experiment: Experiment,
  workdir: pathlib.Path,
  states: Mapping[str, State],
  results: Mapping[int, tuple],
) -> None:
  """The files of each checkpoint, with what is measured by option only."""
  settings = experiment.settings.evaluation
  sanity = settings.sanity and Sanity(experiment, _explain(experiment))
  spectrum = settings.curvature and Spectrum(experiment)
  measured: dict[int, tuple] = {}
  for name, state in states.items():
    step = int(state.step)
    scores, rows, arrays = results[step]
    if step not in measured:
      whole, value = experiment.mesh.replicate(state), {}
      if settings.certificates:
        rows, arrays = certificates.beside(experiment, state, rows, arrays)
      value['rows'] = rows
      if sanity:
        value['sanity'], more = sanity(whole, arrays['class'])
        arrays = arrays | more
      measured[step] = value, arrays, spectrum and spectrum(whole)
    value, arrays, spectra = measured[step]
    clean = {key.removeprefix('eval/'): v for key, v in scores.items()}
    clean['n'] = len(experiment.test_set)
    value = {
      'checkpoint': name, 'step': step, 'clean': clean, **value,
      'settings': experiment.config['evaluation'],
    }  # fmt: skip
    # The JSON says that there is an evaluation: it goes first and comes last.
    path = workdir / 'evaluation' / f'{name}.json'
    records.remove(path)
    records.write_arrays(path.with_suffix('.npz'), arrays)
    records.write_json(path, value)
    if spectra:
      numbers, arrays = spectra
      path = workdir / 'spectrum' / f'{name}.json'
      records.write_json(path, {'checkpoint': name, 'step': step, **numbers})
      records.write_arrays(path.with_suffix('.npz'), arrays)


def _explain(experiment: Experiment) -> Explain:
  lanes = Lanes.of([experiment])
  attack = make_robustness(lanes)
  return lambda name, state, x, y: attack.explain(
    name, (state.params, state.model_state, lanes.values), x, y
  )


def find_all(
  experiment: Experiment,
  workdir: pathlib.Path,
  known: Mapping[str, State] | None = None,
) -> dict[str, State]:
  """The states of a run that its config wants evaluated, by their names.

  Raises:
    InputError: there is none, or one is damaged.
  """
  known = known or {}
  names = experiment.settings.evaluation.checkpoints
  states = {
    name: known.get(name) or find(experiment, workdir, name) for name in names
  }
  states = {name: state.averaged for name, state in states.items() if state}
  errors.require(
    '--workdir', str(workdir), bool(states),
    f'a run that has one of the checkpoints {", ".join(names)}',
  )  # fmt: skip
  return states


def find(
  experiment: Experiment, workdir: pathlib.Path, name: str
) -> State | None:
  """The state of checkpoint `name`, to be measured; None if there is none."""
  folder, like = workdir / 'checkpoints', experiment.like()
  state = _restore(folder / name, {'state': like})
  if state is None and name == 'last':
    content = {'state': like, 'memory': like.params}
    state = _restore(folder / 'rolling', content)
  return state and state.averaged


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
