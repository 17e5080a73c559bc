# What the scripts of the data sets share; sourced by them, not run.
#
# A script sets the first group of variables and defines `queries`, which calls `explain NAME FLAG...` once for each
# question of the paper; then it calls `main "$@"`.
# shellcheck shell=bash

set -euo pipefail
trap 'exit 143' TERM USR1 # once main.py has ended, which gets the signal too

about=                 # for --help
preset=                # of main.py
model_names=()         # files to look for in --models; the first that is there is taken
classifier_names=()    #
oracle_names=()        # of faces: with one, MNAC and CD are computed, and with VGGFace2, FVA
declare -A optional=() # flag of main.py -> 1, where it can do without the file

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}

data=${ACE_DATA:-}
models=${ACE_MODELS:-}
output=${ACE_OUTPUT:-}
only=${ACE_ONLY:-}
distances=${ACE_DISTANCES:-l1 l2}
l2=${ACE_L2:-0.1} # a choice of this project: the paper's weight is not recorded here
dry_run=
extra=()  # flags for main.py, as typed
chosen=() # weights found in --models
judges=() # of them, those of evaluate.py
ran=0

usage() {
    cat <<EOF
usage: bash scripts/$(basename "$0") --data DIR --models DIR --output DIR [option ...] [flag of main.py ...]

$about

  --data DIR        the data set, laid out as in docs/datasets (or ACE_DATA)
  --models DIR      the weights, as scripts/download-weights.sh writes them (or ACE_MODELS)
  --output DIR      results: DIR/QUERY/Results/l1 and l2 (or ACE_OUTPUT)
  --only NAMES      these queries or runs alone, e.g. --only 'smile age-l1' (or ACE_ONLY)
  --distances NAMES l1, l2 or both: '$distances' (or ACE_DISTANCES)
  --l2 WEIGHT       dist_l2 of the l2 runs: $l2, a choice, not the paper's (or ACE_L2)
  --dry-run         print the commands
  --help            this text

All else goes to main.py as typed and wins over the preset '$preset': --gpu 1, --num_samples 100,
--model_path FILE, --classifier_path FILE, ... A run that was stopped continues with the same command.
PYTHON names the interpreter.
EOF
}

refuse() {
    echo "error: $*" >&2
    exit 2
}

# Read the command line, find the weights, run the queries.
main() {
    while (($#)); do
        case $1 in
            --help | -h) usage && exit ;;
            --dry-run) dry_run=1 ;;
            --data | --models | --output | --only | --distances | --l2)
                (($# > 1)) || refuse "$1: wanted a value after it"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            *) extra+=("$1") ;;
        esac
        shift
    done
    [[ -n $data ]] || refuse "--data is not given: the folder of the data set; see --help"
    [[ -n $output ]] || refuse "--output is not given: the folder for results; see --help"
    [[ $distances =~ ^(l1|l2)( (l1|l2))*$ ]] || refuse "--distances '$distances': wanted l1, l2 or 'l1 l2'"
    find_weights --model_path "${model_names[@]}"
    find_weights --classifier_path "${classifier_names[@]}"
    find_judges
    [[ -n $dry_run ]] || find_packages
    queries
    ((ran)) || refuse "--only '$only': no such query or run; see --help"
}

# find_weights FLAG NAME...: choose the first file that is in --models, unless FLAG was typed.
find_weights() {
    local flag=$1 name word
    shift
    for word in "${extra[@]}"; do
        [[ $word != "$flag" && $word != "$flag="* ]] || return 0
    done
    [[ -n $models ]] || refuse "--models is not given: the folder of the weights; or give $flag FILE"
    for name; do
        if [[ -f $models/$name ]]; then
            chosen+=("$flag" "$models/$name")
            return
        fi
    done
    [[ -z ${optional[$flag]:-} ]] || return 0
    refuse "--models $models: wanted $(either "$@") there; see scripts/download-weights.sh, or give $flag FILE"
}

# find_judges: the networks of the metrics that are in --models, and where to compute them.
find_judges() {
    local i
    judge --inception_weights pt_inception-2015-12-05-6726825d.pth
    judge --simsiam_weights simsiam.pth.tar
    if ((${#oracle_names[@]})); then
        judge --vggface2_weights resnet50_ft_weight.pkl
        judge --oracle_path "${oracle_names[@]}"
        judges+=(--celeba_path "$data")
    fi
    for ((i = 0; i < ${#extra[@]}; i++)); do
        case ${extra[i]} in
            --device | --gpu | --num_workers) judges+=("${extra[i]}" "${extra[i + 1]:-}") ;;
            --device=* | --gpu=* | --num_workers=*) judges+=("${extra[i]}") ;;
        esac
    done
}

# judge FLAG NAME...: hand the first file that is in --models to evaluate.py.
judge() {
    local name
    for name in "${@:2}"; do
        [[ -z $models || ! -f $models/$name ]] || { judges+=("$1" "$models/$name") && return; }
    done
}

# Without an interpreter that has the packages, make one as the demo does.
find_packages() {
    local known='import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))'
    "$python" -c "$known" torch torchvision yaml 2>/dev/null && return
    [[ -z ${PYTHON:-} ]] || refuse "PYTHON=$PYTHON: has no torch, torchvision and PyYAML, or is no Python"
    pushd "$root" >/dev/null
    # shellcheck source-path=SCRIPTDIR source=environment.sh
    source scripts/environment.sh
    use_environment .
    popd >/dev/null
}

either() {
    local names=$1 name
    for name in "${@:2}"; do names+=" or $name"; done
    echo "$names"
}

# explain QUERY FLAG...: a run for each distance, then its evaluation.
explain() {
    local query=$1 distance weights
    shift
    for distance in $distances; do
        [[ -z $only || " $only " == *" $query "* || " $only " == *" $query-$distance "* ]] || continue
        ran=1
        weights=()
        [[ $distance == l1 ]] || weights=(--dist_l1 0 --dist_l2 "$l2")
        # A folder for each query: whether an original lies in Correct or Incorrect depends on the question.
        local place=(--output_path "$output/$query" --exp_name "$distance")
        run "$python" "$root/main.py" --preset "$preset" --data_dir "$data" "${chosen[@]}" "${place[@]}" "$@" \
            "${weights[@]}" "${extra[@]}"
        if [[ " ${extra[*]} " != *" --check "* ]] && ! is_part; then
            run "$python" "$root/evaluate.py" "${place[@]}" "${judges[@]}"
        fi
    done
}

# One of several chunks was asked for, which is not evaluated by itself.
is_part() {
    [[ " ${extra[*]}" == *" --chunk"* && " ${extra[*]} " != *" --merge_chunks "* ]]
}

run() {
    if [[ -n $dry_run ]]; then
        printf '%q ' "$@"
        echo
    else
        { printf '+' && printf ' %q' "$@" && echo; } >&2
        "$@"
    fi
}
