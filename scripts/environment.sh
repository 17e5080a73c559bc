# Sourced: puts a Python environment with this project on the PATH, making .venv if none is active.
#   . scripts/environment.sh [EXTRA]        EXTRA: optional dependencies, e.g. test

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    [ -d .venv ] || python3 -m venv .venv
    . .venv/bin/activate
fi
wanted=".${1:+[$1]}"
stamp="$(python -c 'import sys; print(sys.prefix)')/.ace-$(cksum < pyproject.toml | cut -d' ' -f1)${1:+-$1}"
if [ ! -e "$stamp" ]; then
    echo "installing $wanted (the first time only) ..."
    python -m pip install --quiet --editable "$wanted"
    touch "$stamp"
fi
