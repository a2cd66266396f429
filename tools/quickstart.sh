#!/usr/bin/env bash
# Installs mmlt into .venv of this repository and runs VL-LTR on MNIST-LT: pretraining of a tiny CLIP on printed
# characters, class-wise pretraining with sentences about the digits, anchor sentences, the language-guided head, and
# the many/medium/few table. Safe to run again; extra arguments go to tools/train.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/setup_env.sh" demo,deploy
cd "$root"
# Threads that wait give their core away; otherwise anything else on the machine makes the training many times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
start=$(date +%s)
"$VENV_PYTHON" tools/train.py configs/vlltr/vlltr_tiny_mnist-lt.py "$@"
echo "Finished in $(($(date +%s) - start)) s."
