#!/usr/bin/env bash
# The pictures split over a SLURM array, one GPU a task; then a job that merges and evaluates (slurm-merge.sh).
#
#   sbatch [--array=0-31 --partition=NAME ...] scripts/slurm-array.sh [PROGRAM] FLAG... [-- FLAG-OF-EVALUATE...]
#
# from the root of the repository, its environment active. PROGRAM: main.py, postprocessing.py or the script of a data
# set. See docs/cluster.md, also for what happens at the time limit and how to repeat a task that failed.
#SBATCH --job-name=ace
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
source scripts/slurm.sh

# The first task queues the merge, unless it did before it was requeued itself.
queue_merge() {
    local name=ace-merge-$SLURM_ARRAY_JOB_ID options
    options=(--dependency="afterok:$SLURM_ARRAY_JOB_ID" --kill-on-invalid-dep=yes)
    options+=(--partition="$SLURM_JOB_PARTITION" ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"})
    [[ $SLURM_ARRAY_TASK_ID == "$SLURM_ARRAY_TASK_MIN" && -z $(squeue --noheader --name="$name") ]] || return 0
    unset "${!SLURM_ARRAY_@}" # the merge is no array
    sbatch --job-name="$name" "${options[@]}" scripts/slurm-merge.sh "$@" ||
        echo "note: after the array, sbatch scripts/slurm-merge.sh with the same flags" >&2
}

read_words "$@"
(queue_merge "$@")
use_scratch
until_limit "${command[@]}" --chunk auto
