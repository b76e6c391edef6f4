#!/usr/bin/env bash
# One TPU pod, from its making to its end; each step can be repeated.
#   launch/tpu_pod.sh [--dry_run] create
#   launch/tpu_pod.sh [--dry_run] push
#   launch/tpu_pod.sh [--dry_run] run --config configs/digits_cnn.py \
#     --workdir runs/digits_cnn
#   launch/tpu_pod.sh [--dry_run] logs|kill|delete
# POD: its name. ZONE, TYPE, VERSION: where it is, which accelerator, which
# software. BUCKET: where runs are kept (see tpu_setup.sh). SPOT=1: cheaper, may
# be taken away; `create`, `push` and the same `run` go on.
# `run` stops what runs (SIGTERM: the state is saved) and starts the program on
# every worker with --distributed. A --workdir below runs/ is in the bucket.
set -euo pipefail
cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = --dry_run ]; then dry=1 && shift; fi
pod=${POD:?give the name of the pod as POD} zone=${ZONE:-us-central2-b}
type=${TYPE:-v4-16} version=${VERSION:-tpu-ubuntu2204-base}
there=implicit_attr # the folder on a worker, below its home
do_() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [ -n "$dry" ] || "$@"
}
tpu() { # VERB ARGS…
  local verb=$1
  shift
  do_ gcloud compute tpus tpu-vm "$verb" "$pod" --zone="$zone" "$@"
}
on_all() { tpu ssh --worker=all --command="$1"; }
# The program gets half a minute to save, and is killed if it does not end.
stop="cd $there && if [ -f pid ]; then kill \$(cat pid) 2>/dev/null;
for i in \$(seq 30); do kill -0 \$(cat pid) 2>/dev/null || break; sleep 1; done;
kill -9 \$(cat pid) 2>/dev/null; rm -f pid; fi; true"
stop=${stop//$'\n'/ }

case ${1:-} in
  create)
    tpu create --accelerator-type="$type" --version="$version" \
      ${SPOT:+--spot}
    ;;
  push)
    do_ git archive --format=tar.gz --output="/tmp/$pod.tar.gz" HEAD
    do_ gcloud compute tpus tpu-vm scp "/tmp/$pod.tar.gz" "$pod:" \
      --zone="$zone" --worker=all
    on_all "mkdir -p $there && tar xzf $pod.tar.gz -C $there && BUCKET=${BUCKET:-} $there/launch/tpu_setup.sh"
    ;;
  run)
    shift
    on_all "$stop"
    on_all "cd $there || exit; nohup .venv/bin/python -m implicit_attr.main --distributed$(printf ' %q' "$@") > log 2>&1 < /dev/null & echo \$! > pid"
    ;;
  logs) tpu ssh --worker=0 --command="tail -n 100 -f $there/log" ;;
  kill) on_all "$stop" ;;
  delete) tpu delete --quiet ;;
  *)
    echo "error: '${1:-}' must be create, push, run, logs, kill or delete" >&2
    exit 2
    ;;
esac
