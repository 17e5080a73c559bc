#!/usr/bin/env bash
# Make all of demo/ from Fashion-MNIST: about two and a half hours on two CPU cores.   bash scripts/train-demo.sh [SOURCE] [WORK]
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

classifier() {  # FILE, further flags
    python train_classifier.py --preset fashion-classifier --data_dir "$work/pictures/train" \
        --val_dir "$work/pictures/test" --output_path "demo/$1" "${@:2}"
}
classifier classifier.pt
classifier unseen_a.pt --arch plain-24 --epochs 5 --seed 11
classifier unseen_b.pt --arch mixer-64 --epochs 7 --lr 0.004 --seed 12
classifier tuning.pt --arch small-12 --epochs 4 --seed 13

# The planted shortcut: two classifiers, and the diffusion model fitted to the marked pictures.
for part in train test; do
    python scripts/plant_mark.py "$work/pictures/$part" "$work/marked/$part"
done
mkdir -p demo/shortcut
for name in tainted control; do
    python train_classifier.py --preset fashion-classifier --data_dir "$work/marked/train/$name" \
        --val_dir "$work/marked/test/$name" --arch small-12 --epochs 5 --seed 14 --output_path "demo/shortcut/$name.pt"
done
python train_diffusion.py --preset fashion-ddpm --data_dir "$work/marked/train/tainted" --init_weights demo/ddpm.pt \
    --batch_size 48 --lr 0.0001 --ema_rate 0.96 --lr_anneal_steps 160 --save_interval 160 \
    --output_path "$work/ddpm-marked"
cp "$work/ddpm-marked/ema_0.96_000160.pt" demo/shortcut/ddpm.pt
