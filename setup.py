"""Packaging; tools are configured in pyproject.toml."""

import pathlib
import re

import setuptools

here = pathlib.Path(__file__).parent
version = re.search(
  r"__version__ = '(.+)'", (here / 'implicit_attr/__init__.py').read_text()
)[1]

setuptools.setup(
  name='implicit_attr',
  version=version,
  description='Which training dynamics make explanations robust?',
  long_description=(here / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  # Folders of configs have no __init__.py: a config is run as a file, too.
  packages=setuptools.find_namespace_packages(include=['implicit_attr*']),
  package_data={
    'implicit_attr': ['py.typed'],
    'implicit_attr.report': ['*.j2', '*.css', '*.js'],
  },
  entry_points={'console_scripts': ['implicit_attr=implicit_attr.main:start']},
  python_requires='>=3.11',
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8',
    'flax>=0.12.8,<0.13',
    'importlib_resources',  # tensorflow-datasets needs it, undeclared
    'jax>=0.10,<0.13',
    'jinja2>=3.1',
    'matplotlib>=3.9',
    'ml_collections>=1.0',
    'numpy>=2.0',
    'optax>=0.2.6,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'pillow>=10',
    'scikit-learn>=1.5',
    'scipy>=1.13',
    'tensorflow-datasets>=4.9.9,<5',
  ],
  extras_require={
    'test': [
      'dm-haiku>=0.0.16',
      'equinox>=0.13',
      'pytest>=8',
      'pytest-xdist>=3.6',
      'ruff>=0.17,<0.18',
      'tensorboard>=2.18',
      'tensorboardX>=2.6',
    ],
    # One release: another finds other errors.
    'types': ['pyright[nodejs]==1.1.414'],
    'tensorboard': ['tensorboardX>=2.6'],
    'docs': ['mkdocs-material>=9.6,<10', 'mkdocstrings[python]>=1,<2'],
    # Beside these, without their dependencies: pyhessian and
    # curvlinops-for-pytorch, which would bring torchvision.
    'peers': [
      'captum',
      'einops',
      'einconv',
      'foolbox',
      'linear_operator',
      'quantus',
      'scikit-image',
      'torch',
      'trackio',
    ],
  },
)
