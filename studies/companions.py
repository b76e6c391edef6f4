"""Do the findings of three companion papers show on small networks? Figures.

  python studies/companions.py
  python studies/companions.py kim wen

kim: arXiv 1903.11626; scorpio: 2009.04923; wen: 2011.07478. Digits only, three
seeds; says how far it is and how long it will take. Writes companions_*.png
and companions.json, which companions.md reports, beside this file.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use('Agg')

import companions_kim
import companions_scorpio
import companions_wen

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

PARTS = {
  'kim': (companions_kim.main, 4),
  'scorpio': (companions_scorpio.main, len(companions_scorpio.ARMS)),
  'wen': (companions_wen.main, len(companions_wen.ARMS)),
}


def main(names: list[str]) -> None:
  names = names or list(PARTS)
  if unknown := set(names) - set(PARTS):
    sys.exit(f'unknown {sorted(unknown)}; allowed: {", ".join(PARTS)}')
  path = DOCS / f'{pathlib.Path(__file__).stem}.json'
  found = json.loads(path.read_text()) if path.exists() else {}
  done, total = 0, sum(PARTS[name][1] for name in names)
  for name in names:
    run, parts = PARTS[name]
    found[name] = run(done, total)
    done += parts
    path.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  main(sys.argv[1:])
