"""Is a measured Hessian spectrum shown, and its absence no matter?"""

import json

import numpy as np
import pytest

from implicit_attr import report
from implicit_attr.report import spectrum


@pytest.fixture
def measured(tmp_path):
  """A run directory that holds nothing but the spectrum of one checkpoint."""
  folder = tmp_path / 'spectrum'
  folder.mkdir()
  numbers = {
    'top': [40.0, 12.0], 'bottom': [-1.0], 'trace': 123.4, 'trace_se': 5.6,
    'examples': 64,
  }  # fmt: skip
  (folder / 'last.json').write_text(json.dumps(numbers))
  grid = np.linspace(-2, 42, 200)
  density = np.exp(-(grid**2))
  np.savez(
    folder / 'last.npz', grid=grid, density=density, density_se=density / 9
  )
  return tmp_path


def test_a_spectrum_is_a_figure_of_the_page(measured):
  page = report.write(measured).read_text()
  assert 'Spectrum of the loss Hessian' in page and '64 training' in page
  assert (measured / 'figures' / 'spectrum_last.png').stat().st_size > 5000


def test_a_run_without_a_spectrum_does_not_speak_of_one(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  assert spectrum.draw(report.load(tmp_path), tmp_path) is None
  assert 'pectrum of' not in report.write(tmp_path).read_text()


def test_a_spectrum_cut_short_is_named_on_the_page(measured):
  path = measured / 'spectrum' / 'last.npz'
  path.write_bytes(path.read_bytes()[:100])
  page = report.write(measured).read_text()
  assert 'spectrum/last.npz is there, but cannot be read' in page
