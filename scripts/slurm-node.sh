#!/usr/bin/env bash
# The pictures split over the GPUs of one SLURM job, then merged and evaluated in it.
#
#   sbatch [--ntasks-per-node=8 --gres=gpu:8 ...] scripts/slurm-node.sh [PROGRAM] FLAG... [-- FLAG-OF-EVALUATE...]
#
# from the root of the repository, its environment active. ACE_LAUNCH starts the processes, srun if it is not set; e.g.
# ACE_LAUNCH='torchrun --no-python --nproc-per-node 4' or 'mpiexec -n 4'. See docs/cluster.md.
#SBATCH --job-name=ace-node
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source scripts/slurm.sh

read_words "$@"
use_scratch
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from the job
read -ra launch <<<"${ACE_LAUNCH:-srun --kill-on-bad-exit=0}"
[[ ${launch[0]} != srun ]] || ending=USR1 # at SIGTERM srun kills its tasks
until_limit "${launch[@]}" "${command[@]}" --chunk auto
ending=TERM
until_limit merge
