#!/usr/bin/env bash
# Lint and tests.   bash scripts/test.sh [PYTEST ARGUMENTS]     e.g. -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment '.[test]'

ruff check .
ruff format --check .
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --dist loadgroup "$@"
