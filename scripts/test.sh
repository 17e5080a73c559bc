#!/usr/bin/env bash
# Lint, types and tests.   bash scripts/test.sh [PYTEST ARGUMENTS]     e.g. -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment '.[test]'

run_tests() {
    # One process more than processors: the tests of a cluster mostly wait.
    OMP_NUM_THREADS=1 python -m pytest --numprocesses $(($(nproc) + 1)) --dist loadgroup --no-loadscope-reorder "$@"
}

ruff check .
ruff format --check .
bash scripts/types.sh
run_tests "$@"

if [ $# = 0 ]; then # the numerical ones again, as on processors that have less
    numerical=(tests/golden tests/guided_diffusion tests/method/test_gradients.py)
    numerical+=(tests/evaluation/test_recorded_figures.py -m "not slow" -k "not main and not attack_takes")
    ATEN_CPU_CAPABILITY=default run_tests "${numerical[@]}"
    if grep -q avx512 /proc/cpuinfo 2> /dev/null; then
        ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 run_tests "${numerical[@]}"
    fi
fi
