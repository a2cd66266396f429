#!/usr/bin/env bash
# Installs mmlt into .venv of this repository and runs its tests; extra arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/setup_env.sh" test
cd "$root"
exec "$VENV_PYTHON" -m pytest "$@"
