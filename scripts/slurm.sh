# What the SLURM scripts share; sourced by them in the folder that they were submitted from.
# shellcheck shell=bash
set -euo pipefail
set -m # each command in the background is a process group, which one signal reaches whole

python=${PYTHON:-python}
program=main.py # what is run
command=()      # and how, with its flags
evaluation=()   # flags of evaluate.py
ending=TERM     # the signal that ends it after the picture in hand
scratch=${ACE_SCRATCH:-}

refuse() {
    echo "error: $*" >&2
    exit 2
}

# Read [PROGRAM] FLAG... [-- FLAG-OF-EVALUATE...].
read_words() {
    [[ -n ${SLURM_JOB_ID:-} ]] || refuse "this runs in a job: sbatch scripts/slurm-array.sh ... or slurm-node.sh"
    if [[ ${1:-} == *.py || ${1:-} == *.sh ]]; then
        program=$1
        shift
    fi
    [[ -f $program ]] || refuse "$program: not in $PWD; submit from the root of the repository"
    command=("$python" "$program")
    [[ $program == *.py ]] || command=(bash "$program")
    while (($#)) && [[ $1 != -- ]]; do
        command+=("$1")
        shift
    done
    evaluation=("${@:2}")
}

# value_of FLAG DEFAULT: what is typed after the flag.
value_of() {
    local i value=$2
    for ((i = 0; i < ${#command[@]}; i++)); do
        [[ ${command[i]} != "$1" ]] || value=${command[i + 1]:-}
        [[ ${command[i]} != "$1="* ]] || value=${command[i]#*=}
    done
    echo "$value"
}

# Of until_limit, whose command it ends if it has begun.
end_group() {
    [[ -z $group ]] || kill "-$ending" -- "-$group" || true
}

# until_limit COMMAND...: run it. Ahead of the time limit SLURM sends SIGUSR1: stop the command, which ends with the
# picture in hand, and queue the job again. SIGTERM stops it too, and leaves the rest to whoever sent it.
until_limit() {
    local code=0 limit='' heard='' group=''
    trap 'limit=1; heard=1; end_group' USR1 # before the command starts, which may be told to end at once
    trap 'heard=1; end_group' TERM
    "$@" &
    group=$!
    [[ -z $heard ]] || end_group
    while # a signal ends the wait, not the command
        heard=''
        wait "$group" && code=0 || code=$?
        [[ -n $heard ]]
    do :; done
    trap - USR1 TERM
    if [[ -n $limit ]] && ((code)); then
        echo "note: stopped ahead of the time limit; queued again as job $SLURM_JOB_ID" >&2
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}

# With ACE_SCRATCH: copy the data set to that folder of the node's own disk, once a node, and read it there.
use_scratch() {
    local flag=--data_dir data place
    [[ $program == *.py ]] || flag=--data
    data=$(value_of "$flag" '')
    [[ -n $scratch && -n $data ]] || return 0
    [[ ${SLURM_JOB_NUM_NODES:-1} == 1 ]] || refuse "ACE_SCRATCH is for jobs of one node"
    place=$scratch/$(basename "$data")-$(realpath "$data" | cksum | cut -d' ' -f1)
    mkdir -p "$scratch"
    (
        flock 9
        if [[ ! -e $place ]]; then
            rm -rf "$place.part"
            cp -rL "$data" "$place.part"
            mv "$place.part" "$place"
        fi
    ) 9>"$place.lock"
    command+=("$flag" "$place")
}

# One table of all chunks, and their evaluation; the script of a data set evaluates by itself.
merge() {
    "${command[@]}" --merge_chunks True
    [[ $program == main.py ]] || return 0
    "$python" evaluate.py --output_path "$(value_of --output_path results)" --exp_name "$(value_of --exp_name exp)" \
        "${evaluation[@]}"
}
