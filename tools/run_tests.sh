#!/usr/bin/env bash
# Installs mmlt into .venv of this repository and runs its tests; extra arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/setup_env.sh" test
cd "$root"
# A file at a time in every process; arguments that are given win.
exec "$VENV_PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
