# Sourced: use_environment WHAT puts a Python environment with this project on the PATH, making .venv if none is active.
# WHAT: . or, with optional dependencies, '.[test]'. Called from the root of the repository.
# shellcheck shell=bash

use_environment() {
    local stamp
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        [ -d .venv ] || python3 -m venv .venv
        # shellcheck disable=SC1091
        . .venv/bin/activate
    fi
    stamp="$(python -c 'import sys; print(sys.prefix)')/.ace-$(cat pyproject.toml - <<< "$1" | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        echo "installing the packages of $1 (the first time only) ..."
        python -m pip install --quiet --editable "$1"
        touch "$stamp"
    fi
}
