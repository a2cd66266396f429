#!/usr/bin/env bash
# Usage: tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]
# One process a GPU; without GPUs the processes run on CPUs (gloo). NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,3p' "$0" | cut -c3- >&2; exit 2; }
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
