#!/usr/bin/env bash
# Counterfactuals of real photographs, from what is in this repository.   bash scripts/demo.sh [OUTPUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment .

output=${1:-results/demo}
sheets=()
for pair in ankle_boot-sneaker pullover-coat t-shirt-dress; do
    target=${pair##*-}
    query=${pair%-*}
    echo
    echo "== What would have to change in a $query for the classifier to see a $target?"
    python main.py --preset fashion --label_query "$query" --label_target "$target" --num_samples 16 \
        --output_path "$output" --exp_name "$pair"
    sheets+=("$output/Results/$pair/sheet.png")
done
printf '\nopen these:\n'
printf '  %s\n' "${sheets[@]}"
