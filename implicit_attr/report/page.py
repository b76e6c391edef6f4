"""The page of a run: everything in its folder as one file of HTML."""

import dataclasses
import pathlib
from typing import Any

from implicit_attr.report import (
  canvas,
  curvature_scatter,
  curves,
  maps,
  radii,
  robustness,
  sanity,
  spectrum,
  summary,
  tables,
  template,
)
from implicit_attr.runs import reading, records
from implicit_attr.runs.reading import Evaluation, Run


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes figures/*.png and *.svg, and report.html, into a run directory.

  Reads only files of `workdir`; any of them may be missing or cut short, the
  page then says so in a line. The same files give the same bytes. The page
  embeds its images and needs no other file or network; what its only script
  does (values under the pointer, enlarging, CSV) is not needed to read it.

  Returns:
    The path of report.html.

  Raises:
    InputError: `workdir` is not a folder, or cannot be written.
  """
  run = reading.load(workdir)
  probes, problems = reading.probes(run.path)
  run.problems.update(problems)
  folder = run.path / 'figures'
  with canvas.drawing():
    values = _values(run, probes, folder)
    return template.write(run.path, 'page.html.j2', **values)


@dataclasses.dataclass(frozen=True)
class _Block:
  """What the page shows of one evaluated checkpoint."""

  rule: str
  step: int | None
  clean: str
  settings: str
  table: tables.Table


def _values(run: Run, probes: Any, folder: pathlib.Path) -> dict[str, Any]:
  """What the template asks for; figures are drawn on the way."""
  evaluations = run.evaluations
  shown = evaluations.get('last') or next(iter(evaluations.values()), None)
  logged = run.lines or probes
  return dict(
    title=summary.title(run),
    name=run.path.resolve().name,
    story=summary.story(run),
    banners=summary.banners(run),
    tiles=summary.tiles(run),
    curves=curves.draw(run, probes, folder) if logged else None,
    spectrum=spectrum.draw(run, folder),
    relation=curvature_scatter.draw(run, folder),
    rules=tables.rules(evaluations),
    settings=shown.settings if shown else {},
    blocks=[_block(evaluation) for evaluation in evaluations.values()],
    radius=robustness.draw_radius(evaluations, folder),
    points=robustness.draw_points(evaluations, folder),
    radii=radii.draw(shown, folder),
    strength=robustness.draw_strength(shown, folder),
    maps=maps.draw(shown, folder),
    sanity=sanity.draw(shown, folder),
    events=_events(run),
    config=_sections(run.config),
    about=_about(run),
    problems=run.problems,
  )


def _events(run: Run) -> list[tuple[str, str, str]]:
  """(step, what happened, message), milestones among them."""
  events = []
  for line in run.lines:
    step = f'{line["step"]:.0f}'
    if 'event' in line:
      events.append((step, str(line['event']), str(line.get('message', ''))))
    for key in line:
      if key.startswith('milestone/'):
        what = tables.rule(key.removeprefix('milestone/'))
        events.append((step, 'milestone', what))
  return events


def _block(evaluation: Evaluation) -> _Block:
  clean = evaluation.clean
  said = f'clean accuracy {tables.percent(clean.get("accuracy"))}'
  if 'n' in clean:
    said += f' (n = {clean["n"]})'
  if 'loss' in clean:
    said += f', loss {tables.short(clean["loss"])}'
  return _Block(
    rule=tables.rule(evaluation.checkpoint),
    step=evaluation.step,
    clean=said,
    settings=', '.join(
      f'{tables.plain(key)} {_text(value)}'
      for key, value in evaluation.settings.items()
      if isinstance(value, str | int | float)
    ),
    table=tables.robustness(evaluation),
  )


def _sections(config: dict[str, Any]) -> list[tuple[str, list]]:
  """(section, its (key, value) pairs); keys outside sections come first."""
  sections: dict[str, list[tuple[str, str]]] = {'': []}
  for path, value in records.leaves(config):
    name, _, key = path.partition('.')
    pair = (key, _text(value)) if key else (name, _text(value))
    sections.setdefault(name if key else '', []).append(pair)
  return [(name, pairs) for name, pairs in sections.items() if pairs]


def _text(value: Any) -> str:
  if isinstance(value, list | tuple):
    return ', '.join(_text(part) for part in value) or 'none'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, dict):
    return ', '.join(f'{k} {_text(v)}' for k, v in value.items()) or 'none'
  return 'none' if value is None or value == '' else str(value)


def _about(run: Run) -> list[tuple[str, str]]:
  """Command, commit, hardware and versions, as (name, value)."""
  about = run.about
  commit = str(about['git'].get('commit') or '')
  if commit and about['git'].get('dirty'):
    commit += ', with uncommitted changes'
  pairs = (
    ('command', ' '.join(map(str, about['argv']))),
    ('commit', commit),
    ('hardware', _text(about['device']) if about['device'] else ''),
    *((name, str(version)) for name, version in about['versions'].items()),
  )
  return [(name, text) for name, text in pairs if text]
