# Sourced by quickstart.sh and run_tests.sh: makes .venv in the repository and installs mmlt into it.
# Usage: source tools/setup_env.sh EXTRA     (EXTRA: demo or test). Sets $VENV_PYTHON.
# PYTHON=/path/to/python chooses the interpreter.

fail() {
    echo "mmlt: $*" >&2
    exit 1
}

extra=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
VENV_PYTHON=$venv/bin/python
stamp=$venv/.mmlt-installed-$extra
wanted=$(cat "$root/requirements.txt" "$root/pyproject.toml" | cksum)

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    if [ ! -x "$VENV_PYTHON" ]; then
        python=${PYTHON:-}
        if [ -z "$python" ]; then
            for candidate in python3.11 python3.12 python3.10 python3.13 python3; do
                if command -v "$candidate" > /dev/null &&
                    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
                    python=$candidate
                    break
                fi
            done
        fi
        [ -n "$python" ] || fail "Python 3.10 or newer is needed and was not found. Install it, or name it: PYTHON=/path/to/python bash $0"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
            fail "'$python' is not Python 3.10 or newer. Name another: PYTHON=/path/to/python bash $0"
        echo "Making a virtual environment in $venv with $("$python" --version)"
        "$python" -m venv "$venv" > /dev/null ||
            fail "Python's venv module does not work; on Debian or Ubuntu: apt-get install python3-venv"
    fi
    if ! "$VENV_PYTHON" -c 'import torch' 2> /dev/null; then
        free=$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1048576)}')
        [ "$free" -ge 9 ] || fail "The packages need about 9 GB on the disk of $root, but only $free GB are free. Free some space, or clone to another disk."
    fi
    echo "Installing mmlt and what it needs (torch is large; a few minutes the first time)"
    log=$venv/install.log
    (
        cd "$root"
        "$VENV_PYTHON" -m pip install --disable-pip-version-check --upgrade pip
        exec "$VENV_PYTHON" -m pip install --disable-pip-version-check --progress-bar off -e ".[$extra]"
    ) > "$log" 2>&1 &
    pip_pid=$!
    trap 'kill $pip_pid 2> /dev/null' EXIT
    while kill -0 $pip_pid 2> /dev/null; do
        sleep 5
        step=$(grep -oE '^ *(Collecting|Downloading|Building|Installing)[^(]*' "$log" | tail -n 1 | cut -c1-90) || true
        echo "  ${SECONDS} s ${step:-}"
    done
    trap - EXIT
    if ! wait $pip_pid; then
        tail -n 5 "$log" >&2
        if grep -qiE 'connection|resolve|network|timed out|ssl' "$log"; then
            fail "The package index could not be reached: check the network (or pip's proxy and index settings) and run this again. The whole log: $log"
        fi
        fail "The installation failed, see the lines above; the whole log: $log"
    fi
    "$VENV_PYTHON" -c 'import torch, torchvision, mmpretrain, open_clip' 2>> "$log" ||
        fail "The packages do not work together: $(tail -n 1 "$log")"
    echo "$wanted" > "$stamp"
fi
