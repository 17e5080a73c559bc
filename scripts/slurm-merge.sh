#!/usr/bin/env bash
# The tables and the evaluation of a finished array; slurm-array.sh queues this with its own flags.
#
#   sbatch scripts/slurm-merge.sh [PROGRAM] FLAG... [-- FLAG-OF-EVALUATE...]
#SBATCH --job-name=ace-merge
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
source scripts/slurm.sh

read_words "$@"
merge
