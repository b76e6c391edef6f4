"""Mirrors of the record in trackers: TensorBoard, W&B, MLflow and trackio.

metrics.jsonl is the record; a mirror shows its numbers to who watches in
another program. Each name of `train.log_to` is one of `MIRRORS`, whose
package is imported only if it is asked for. Where a run is shown, by which
account and whether online is up to the package and to its own variables, such
as WANDB_MODE, MLFLOW_TRACKING_URI and TRACKIO_DIR.

A run that goes on writes some lines again. TensorBoard hides what it had of
these steps; the others are sent only steps that the record has not had yet. In
either no step is doubled, and `mirrors.json` in the run folder says as which
run to go on.
"""

import contextlib
import importlib
import logging
import pathlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from implicit_attr import errors
from implicit_attr.runs import records

LOG = logging.getLogger(__name__)
PROJECT = 'implicit_attr'


class Mirror(Protocol):
  """One run in one tracker; made of (run folder, its id, first step, config).

  The id is the folder's own and stays; the config is flat.
  """

  def log(self, step: int, values: dict[str, float]) -> None: ...

  def close(self) -> None: ...


class TensorBoard:
  """Event files in the run folder, `tensorboard`."""

  hides = True

  def __init__(self, workdir: pathlib.Path, name: str, step: int, config: dict):
    from tensorboardX import SummaryWriter

    # Its own file, however soon after the last writer it is made.
    self._writer = SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=step, filename_suffix=f'.{step}'
    )

  def log(self, step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


class Client:
  """A run of Weights & Biases or of trackio, which are written to alike."""

  hides = False

  def __init__(self, run: Any):
    self._run = run

  def log(self, step: int, values: dict[str, float]) -> None:
    self._run.log(values, step=step)

  def close(self) -> None:
    self._run.finish()


def wandb(workdir: pathlib.Path, name: str, step: int, config: dict) -> Client:
  """Lanes are runs side by side."""
  import wandb  # pyright: ignore[reportMissingImports]

  return Client(
    wandb.init(
      project=PROJECT, name=workdir.name, id=name, config=config,
      dir=str(workdir), resume='allow', reinit='create_new',
    )
  )  # fmt: skip


def trackio(
  workdir: pathlib.Path, name: str, step: int, config: dict
) -> Client:
  """Its runs are known by their names."""
  import trackio  # pyright: ignore[reportMissingImports]

  return Client(
    trackio.init(
      project=PROJECT, name=f'{workdir.name}-{name}', config=config,
      resume='allow', embed=False,
    )
  )  # fmt: skip


class MLflow:
  """A run of MLflow, found again by a tag."""

  hides = False

  def __init__(self, workdir: pathlib.Path, name: str, step: int, config: dict):
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
    from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

    self._client, self._metric = MlflowClient(), Metric
    known = self._client.get_experiment_by_name(PROJECT)
    experiment = (
      known.experiment_id if known else self._client.create_experiment(PROJECT)
    )
    tag = f'{PROJECT}.folder'
    found = self._client.search_runs([experiment], f"tags.`{tag}` = '{name}'")
    run = (
      found[0]
      if found
      else self._client.create_run(
        experiment, run_name=workdir.name, tags={tag: name}
      )
    )
    self._id = run.info.run_id
    self._client.set_terminated(self._id, 'RUNNING')
    params = [Param(key, str(value)[:500]) for key, value in config.items()]
    self._client.log_batch(self._id, params=params[:100])

  def log(self, step: int, values: dict[str, float]) -> None:
    now = int(1000 * time.time())
    metrics = [self._metric(k, float(v), now, step) for k, v in values.items()]
    self._client.log_batch(self._id, metrics=metrics)

  def close(self) -> None:
    self._client.set_terminated(self._id)


MIRRORS = {
  'tensorboard': TensorBoard, 'wandb': wandb, 'mlflow': MLflow,
  'trackio': trackio,
}  # fmt: skip
PACKAGES = {name: name for name in MIRRORS} | {'tensorboard': 'tensorboardX'}


def installed(field: str, value: Any) -> tuple[str, ...]:
  """Names of mirrors whose packages are here, each once.

  Raises:
    InputError: it is no tuple of such names; names the package that is missing.
  """
  given = isinstance(value, tuple | list)
  allowed = f'a tuple of any of {", ".join(MIRRORS)}'
  errors.require(field, value, given, allowed)
  for name in value:
    errors.choose(field, name, MIRRORS)
    package = PACKAGES[name]
    try:
      importlib.import_module(package)
    except ImportError as e:
      raise errors.InputError(
        f'{field}={name!r} needs the package {package}, which cannot be '
        f'imported ({errors.said(e)}); see pip install {package}'
      ) from e
  return tuple(dict.fromkeys(value))


class Mirrors:
  """The mirrors of one run, opened to continue at `step`.

  One that fails while a run goes on is left out from there, with a warning: the
  record is not in it.

  Args:
    names: of `MIRRORS`.
    seen: the last step in the record before it was opened; -1 if none is.
    config: of the run, nested.

  Raises:
    InputError: one cannot begin.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    names: Sequence[str],
    step: int,
    seen: int,
    config: Mapping[str, Any],
  ):
    self._seen, self._open = seen, {}
    flat = dict(records.leaves(config))
    for name in names:
      try:
        self._open[name] = MIRRORS[name](workdir, _id(workdir), step, flat)
      except errors.InputError:
        raise
      except Exception as e:  # an account, a server, a full disk
        raise errors.InputError(
          f'train.log_to={name!r} could not begin ({errors.said(e)})'
        ) from e

  def log(self, step: int, values: Mapping[str, Any]) -> None:
    """Sends the numbers among `values`."""
    kept = {k: v for k, v in values.items() if isinstance(v, int | float)}
    for name, mirror in list(self._open.items()):
      if not kept or (step <= self._seen and not mirror.hides):
        continue
      try:
        mirror.log(step, kept)
      except Exception as e:
        LOG.warning('%s is left out from step %d on (%s)', name, step,
                    errors.said(e))  # fmt: skip
        del self._open[name]

  def close(self) -> None:
    for mirror in self._open.values():
      with contextlib.suppress(Exception):  # the run itself is over
        mirror.close()


def _id(workdir: pathlib.Path) -> str:
  """What the run of this folder is called elsewhere, at every start."""
  path = workdir / 'mirrors.json'
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return str(records.parsed(path.read_bytes())['id'])
  name = uuid.uuid4().hex[:12]
  records.write_json(path, {'id': name})
  return name
