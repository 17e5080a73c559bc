#!/usr/bin/env bash
# compute_FID.sh OUTPUT EXP [TMP] [--device cpu] [--inception-weights FILE] [...]
#
# TMP, where the original program gathered copies of the pictures, is accepted and not used: the folders are read in
# place. PYTHON names the interpreter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if (($# < 2)) || [[ $1 == -* || $2 == -* ]]; then
    echo "error: wanted: bash $(basename "$0") OUTPUT EXP [TMP] [flag ...]; EXP is such as exp/explanation" >&2
    exit 2
fi
output=$1 exp=$2
shift 2
if (($#)) && [[ $1 != -* ]]; then shift; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m core.metrics.compute_fid --output-path "$output" --exp-name "$exp" --splits 0 "$@"
