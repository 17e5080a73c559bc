# Sourced: use_environment [EXTRA] puts a Python environment with this project on the PATH, making .venv if none is
# active. EXTRA: optional dependencies, e.g. test. Called from the root of the repository.
# shellcheck shell=bash

use_environment() {
    local wanted=".${1:+[$1]}" stamp
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        [ -d .venv ] || python3 -m venv .venv
        # shellcheck disable=SC1091
        . .venv/bin/activate
    fi
    stamp="$(python -c 'import sys; print(sys.prefix)')/.ace-$(cksum < pyproject.toml | cut -d' ' -f1)${1:+-$1}"
    if [ ! -e "$stamp" ]; then
        echo "installing the packages of $wanted (the first time only) ..."
        python -m pip install --quiet --editable "$wanted"
        touch "$stamp"
    fi
}
