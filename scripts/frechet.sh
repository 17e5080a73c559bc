# Sourced by compute_FID.sh and compute_sFID.sh, which set root and splits.
# shellcheck shell=bash

if (($# < 2)) || [[ $1 == -* || $2 == -* ]]; then
    echo "error: wanted: bash $(basename "$0") OUTPUT EXP [TMP] [flag ...]; EXP is such as exp/explanation" >&2
    exit 2
fi
output=$1 exp=$2
shift 2
if (($#)) && [[ $1 != -* ]]; then shift; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m ace_counterfactuals.core.cli.compute FID --output-path "$output" --exp-name "$exp" --splits "$splits" "$@"
