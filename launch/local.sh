#!/usr/bin/env bash
# Runs the program here: makes the environment on the first call, then runs.
#   launch/local.sh --config configs/digits_cnn.py
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
  .venv/bin/pip install --quiet --editable .
fi
exec .venv/bin/python -m implicit_attr.main "$@"
