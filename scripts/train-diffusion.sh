#!/usr/bin/env bash
# A training in one SLURM job, a process for each GPU of one node or several; queued again until it is finished.
#
#   sbatch [--nodes=2 --ntasks-per-node=8 --gres=gpu:8 --time=... ...] scripts/train-diffusion.sh [PROGRAM] FLAG...
#
# from the root of the repository, its environment active. PROGRAM: train_diffusion.py, or train_classifier.py with one
# task. ACE_LAUNCH starts the processes, srun if it is not set; e.g. ACE_LAUNCH='torchrun --no-python --nproc-per-node 4'
# or 'mpiexec -n 4'. See docs/training.md.
#SBATCH --job-name=ace-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source scripts/slurm.sh

program=train_diffusion.py
read_words "$@"
use_scratch
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from the job
read -ra launch <<<"${ACE_LAUNCH:-srun --kill-on-bad-exit=1}"
[[ ${launch[0]} != srun ]] || ending=USR1 # at SIGTERM srun kills its tasks
until_limit "${launch[@]}" "${command[@]}"
