"""Does an archive hold what a report needs, and refuse what it should?"""

import io
import tarfile

import numpy as np
import pytest

from implicit_attr import errors, report
from implicit_attr.runs import pack, records


def run(folder):
  records.claim(folder, {'seed': 0})
  (folder / 'metrics.jsonl').write_text('{"step": 0, "train/loss": 2.0}\n')
  for name in ('checkpoints/last', 'figures', 'probes'):
    (folder / name).mkdir(parents=True)
  (folder / 'checkpoints/last/big').write_bytes(b'1' * 1000)
  (folder / 'report.html').write_text('old')
  np.savez(folder / 'probes/0.npz', a=np.arange(3))


def test_a_packed_sweep_unpacks_to_all_but_checkpoints_and_can_be_reported(
  tmp_path,
):
  run(tmp_path / 'here' / 'sweep' / 'arm')
  made = pack.pack(tmp_path / 'here' / 'sweep')
  assert made.name == 'sweep.tar.xz'
  (tmp_path / 'there').mkdir()
  moved = made.rename(tmp_path / 'there' / made.name)
  folder = pack.unpacked(moved)
  files = (p for p in folder.rglob('*') if p.is_file())
  names = {p.relative_to(folder).as_posix() for p in files}
  assert names == {
    'arm/config.json', 'arm/metrics.jsonl', 'arm/probes/0.npz'
  }  # fmt: skip
  assert report.write(folder).exists()
  with pytest.raises(errors.InputError, match='without a folder sweep'):
    pack.unpacked(moved)


def test_what_is_too_large_leaves_no_archive(tmp_path):
  run(tmp_path / 'run')
  noise = np.random.default_rng(0).bytes(pack.LIMIT + 1000)
  (tmp_path / 'run/probes/1.npz').write_bytes(noise)
  with pytest.raises(errors.InputError, match='at most 16 MiB'):
    pack.pack(tmp_path / 'run')
  assert [p.name for p in tmp_path.iterdir()] == ['run']
  with pytest.raises(errors.InputError, match='with a run in it'):
    pack.pack(tmp_path / 'nothing')


def test_an_archive_that_reaches_out_of_its_folder_is_refused(tmp_path):
  with tarfile.open(tmp_path / 'run.tar.xz', 'w:xz') as archive:
    for name in ('run/a', '../b'):
      archive.addfile(tarfile.TarInfo(name), io.BytesIO())
  with pytest.raises(errors.InputError, match='archive of the folder run'):
    pack.unpacked(tmp_path / 'run.tar.xz')
  (tmp_path / 'bad.tar.xz').write_bytes(b'no archive')
  with pytest.raises(errors.InputError, match='cannot be read'):
    pack.unpacked(tmp_path / 'bad.tar.xz')
  assert not (tmp_path.parent / 'b').exists()
