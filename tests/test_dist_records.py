"""Does only one process write, and does a full disk spare what is there?"""

import json
import subprocess
import sys

import numpy as np
import pytest

from implicit_attr import errors
from implicit_attr.runs import records
from implicit_attr.runs.metrics import Metrics, read_metrics


def test_a_silenced_process_writes_nothing_and_reads_all(tmp_path, monkeypatch):
  records.write_json(tmp_path / 'config.json', {'config': {'a': 1}})
  monkeypatch.setattr(records, '_SILENT', records.threading.Event())
  records.silence()
  records.write_json(tmp_path / 'new.json', {})
  records.write_arrays(tmp_path / 'new.npz', {'a': np.ones(3)})
  records.write_status(tmp_path, 'finished', 3)
  metrics = Metrics(tmp_path, 0)
  metrics.write(0, {'a': 1})
  metrics.close()
  records.claim(tmp_path, {'a': 1})
  with pytest.raises(errors.InputError, match='a: 1 -> 2'):
    records.claim(tmp_path, {'a': 2})
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']


FULL = """
import pathlib, resource, sys
import numpy as np
from implicit_attr import errors
from implicit_attr.runs import records
from implicit_attr.runs.metrics import Metrics
folder = pathlib.Path(sys.argv[1])
records.write_json(folder / 'a.json', 'old')
records.write_arrays(folder / 'a.npz', {'a': np.zeros(3)})
metrics = Metrics(folder, 0)
metrics.write(0, {'a': 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # like a full disk
noise = np.random.default_rng(0).random(1000)
for write in (
  lambda: records.write_json(folder / 'a.json', noise.tolist()),
  lambda: records.write_arrays(folder / 'a.npz', {'a': noise}),
  lambda: metrics.write(1, {'a': noise.tolist()}),
):
  try:
    write()
  except errors.InputError as e:
    print(e)
metrics.close()
"""


def test_a_full_disk_is_one_line_and_spares_what_is_there(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', FULL, tmp_path], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  said = done.stdout.splitlines()
  assert len(said) == 3 and all('File too large' in line for line in said)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'a.json', 'a.npz', 'metrics.jsonl'
  ]  # fmt: skip
  assert json.loads((tmp_path / 'a.json').read_text()) == 'old'
  np.testing.assert_array_equal(np.load(tmp_path / 'a.npz')['a'], np.zeros(3))
  assert read_metrics(tmp_path) == [{'step': 0, 'a': 1}]
