#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]
# One process a GPU; without GPUs the processes run on CPUs (gloo). NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,3p' "$0" | cut -c3- >&2; exit 2; }
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
