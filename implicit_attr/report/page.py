"""How does a run directory become one page that needs nothing else?"""

import dataclasses
import pathlib
from typing import Any

from implicit_attr.report import (
  canvas,
  curvature_scatter,
  curves,
  maps,
  robustness,
  sanity,
  spectrum,
  summary,
  tables,
  template,
)
from implicit_attr.report.read import Evaluation, Run, load


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes figures/*.png and report.html into a run directory.

  Reads only files of `workdir`; any of them may be missing or cut short, the
  page then says so in a line. The same files give the same bytes. The page
  embeds its images and needs no other file, network or script.

  Returns:
    The path of report.html.

  Raises:
    InputError: `workdir` is not a folder, or cannot be written.
  """
  run = load(workdir)
  folder = template.figures(run.path)
  with canvas.drawing():
    return template.write(run.path, 'page.html.j2', **_values(run, folder))


@dataclasses.dataclass(frozen=True)
class _Block:
  """What the page shows of one evaluated checkpoint."""

  rule: str
  step: int | None
  clean: str
  settings: str
  table: tables.Table


def _values(run: Run, folder: pathlib.Path) -> dict[str, Any]:
  """What the template asks for; figures are drawn on the way."""
  shown = run.evaluations.get('last') or next(
    iter(run.evaluations.values()), None
  )
  return dict(
    title=summary.title(run),
    name=run.path.resolve().name,
    story=summary.story(run),
    banners=summary.banners(run),
    tiles=summary.tiles(run),
    curves=curves.draw(run, folder),
    spectrum=spectrum.draw(run, folder),
    relation=curvature_scatter.draw(run, folder),
    rules=tables.rules(run.evaluations),
    settings=shown.settings if shown else {},
    blocks=[_block(evaluation) for evaluation in run.evaluations.values()],
    points=robustness.draw_points(run.evaluations, folder),
    strength=robustness.draw_strength(shown, folder),
    maps=maps.draw(shown, folder),
    sanity=sanity.draw(shown, folder),
    events=[
      (f'{event["step"]:.0f}', event['event'], str(event.get('message', '')))
      for event in run.events
    ],
    config=_sections(run.config),
    overrides=run.about.get('overrides') or {},
    about=_about(run),
    problems=run.problems,
  )


def _block(evaluation: Evaluation) -> _Block:
  clean = evaluation.clean
  parts = [f'clean accuracy {tables.percent(clean.get("accuracy"))}']
  if clean.get('n') is not None:
    parts[0] += f' (n = {clean["n"]})'
  if clean.get('loss') is not None:
    parts.append(f'loss {tables.short(clean["loss"])}')
  return _Block(
    rule=tables.rule(evaluation.checkpoint),
    step=evaluation.step,
    clean=', '.join(parts),
    settings=', '.join(
      f'{tables.plain(key)} {_text(value)}'
      for key, value in evaluation.settings.items()
      if isinstance(value, str | int | float)
    ),
    table=tables.robustness(evaluation),
  )


def _sections(
  config: dict[str, Any],
) -> list[tuple[str, list[tuple[str, str]]]]:
  """(section, its (key, value) pairs); keys outside sections come first."""
  loose = [
    (key, _text(value))
    for key, value in config.items()
    if not isinstance(value, dict)
  ]
  sections = [('', loose)] if loose else []
  for name, section in config.items():
    if isinstance(section, dict) and section:
      sections.append((name, list(_leaves(section))))
  return sections


def _leaves(section: dict[str, Any], prefix: str = '') -> Any:
  for key, value in section.items():
    if isinstance(value, dict) and value:
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', _text(value)


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
  found = []
  if about.get('argv'):
    found.append(('command', ' '.join(map(str, about['argv']))))
  git = about.get('git') or {}
  if git.get('commit'):
    changed = ', with uncommitted changes' if git.get('dirty') else ''
    found.append(('commit', f'{git["commit"]}{changed}'))
  device = about.get('device') or {}
  if device:
    found.append(('hardware', _text(device)))
  versions = about.get('versions') or {}
  found += [(name, str(version)) for name, version in versions.items()]
  return found
