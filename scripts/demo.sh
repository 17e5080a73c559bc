#!/usr/bin/env bash
# Counterfactuals of real photographs, from what is in this repository.   bash scripts/demo.sh [OUTPUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment .

output=${1:-results/demo}
pairs=(ankle_boot-sneaker pullover-coat t-shirt-dress)
sheets=()
for pair in "${pairs[@]}"; do
    target=${pair##*-}
    query=${pair%-*}
    echo
    echo "== What would have to change in a $query for the classifier to see a $target?"
    python main.py --preset fashion --label_query "$query" --label_target "$target" \
        --output_path "$output" --exp_name "$pair"
    sheets+=("$output/Results/$pair/sheet.png")
done
echo
echo "== How good are they?"
python evaluate.py --output_path "$output" --exp_name "${pairs[@]}" --unseen demo/unseen_{a,b,c}.pt
printf 'and these:\n'
printf '  %s\n' "${sheets[@]}"
