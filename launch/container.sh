#!/usr/bin/env bash
# The program in a container; its runs are written to ./runs.
#   launch/container.sh [--dry_run] build
#   launch/container.sh [--dry_run] run --config configs/digits_cnn.py \
#     --workdir /runs/digits_cnn
# ENGINE: docker or podman. JAX: as in local.sh. GPUS: all, to see the GPUs.
set -euo pipefail
cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = --dry_run ]; then dry=1 && shift; fi
do_() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [ -n "$dry" ] || "$@"
}
engine=${ENGINE:-docker}
case ${1:-} in
  build)
    do_ "$engine" build --file launch/Containerfile \
      --build-arg "JAX=${JAX:-jax}" --tag implicit_attr .
    ;;
  run)
    shift
    do_ mkdir -p runs
    do_ "$engine" run --rm --init ${GPUS:+--gpus "$GPUS"} \
      --volume "$PWD/runs:/runs" implicit_attr "$@"
    ;;
  *)
    echo "error: '${1:-}' must be build or run" >&2
    exit 2
    ;;
esac
