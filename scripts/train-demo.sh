#!/usr/bin/env bash
# Make all of demo/ from Fashion-MNIST: about two hours on two CPU cores.   bash scripts/train-demo.sh [SOURCE] [WORK]
#   SOURCE: folder with the four .gz files of Fashion-MNIST (Debian: apt-get install dataset-fashion-mnist)
#   WORK:   where pictures and checkpoints of the training go
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment .

source_folder=${1:-/usr/share/datasets/fashion-mnist}
work=${2:-training/demo}
steps=3100

python scripts/fashion_mnist.py "$source_folder" "$work/pictures"
python scripts/fashion_mnist.py "$source_folder" demo/pictures --per-class 32

python train_diffusion.py --preset fashion-ddpm --data_dir "$work/pictures/train" --output_path "$work/ddpm" \
    --lr_anneal_steps "$steps" --save_interval "$steps"
cp "$work/ddpm/ema_0.995_$(printf %06d "$steps").pt" demo/ddpm.pt
cp "$work/ddpm/samples$(printf %06d "$steps").png" demo/ddpm-samples.png

python train_classifier.py --preset fashion-classifier --data_dir "$work/pictures/train" \
    --val_dir "$work/pictures/test" --output_path demo/classifier.pt
