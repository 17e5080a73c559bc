#!/usr/bin/env bash
# Make all of the demo from Fashion-MNIST, in a folder of its own.   bash scripts/train-demo.sh [SOURCE] [WORK]
#
#   SOURCE: folder with the four .gz files of Fashion-MNIST (Debian: apt-get install dataset-fashion-mnist)
#   WORK:   where all of it goes (training/demo): WORK/demo is the demo, beside it are the trainings, each with a page
#
# The same command goes on where it was stopped. Two hours on two CPU cores, see demo/README.md. DDPM_STEPS, FITTED_STEPS,
# STUDENT_STEPS, BATCH and EPOCHS take the place of the numbers below, for a trial.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment '.[test]'

source_folder=${1:-/usr/share/datasets/fashion-mnist}
work=${2:-training/demo}
demo=$work/demo
steps=${DDPM_STEPS:-5000}    # of the diffusion model, the learning rate falling straight to 0
student=${STUDENT_STEPS:-3000} # of the small network that answers for it in most gradients
fitted=${FITTED_STEPS:-400}  # of that of the marked pictures

mkdir -p "$demo/shortcut"
python scripts/fashion_mnist.py "$source_folder" "$work/pictures"
python scripts/fashion_mnist.py "$source_folder" "$demo/pictures" --per-class 32

# diffusion FOLDER FILE STEPS FLAG...: the moving average of a training, and what it is.
diffusion() {
    local folder=$work/$1 file=$demo/$2
    python train_diffusion.py --preset fashion-ddpm --output_path "$folder" --lr_anneal_steps "$3" \
        --save_interval "$3" ${BATCH:+--batch_size "$BATCH"} "${@:4}"
    cp "$folder"/ema_*_"$(printf %06d "$3")".pt "$file"
    grep -E "$told" "$folder/config.yaml" >"${file%.pt}.yaml"
}
told='^(image_size|num_(channels|res_blocks|heads|head_channels|heads_upsample)|channel_mult|attention_.*|use_scale.*|resblock.*|use_new.*|learn_sigma|diffusion_steps):'
told+='|^(noise_schedule|predict_.*|rescale_timesteps):' # flags of config.yaml that describe the model

# classifier FILE TRAIN TEST FLAG...: trained on the one's class folders, its accuracy told on the other's.
classifier() {
    local file=$work/classifiers/$1
    [[ -e $file ]] || python train_classifier.py --preset fashion-classifier --data_dir "$work/$2" \
        --val_dir "$work/$3" --output_path "$file" "${@:4}" ${EPOCHS:+--epochs "$EPOCHS"}
    cp "$file" "$demo/$1"
}

diffusion ddpm ddpm.pt "$steps" --data_dir "$work/pictures/train"
python train_diffusion.py --sample 32 --model_path "$demo/ddpm.pt" --timestep_respacing 50 --output_path "$work/samples"
cp "$work/samples/grid.png" "$demo/ddpm-samples.png"

python train_diffusion.py --preset fashion-student --model_path "$demo/ddpm.pt" --data_dir "$work/pictures/train" \
    --output_path "$work/student" --lr_anneal_steps "$student" --save_interval "$student" ${BATCH:+--batch_size "$BATCH"}
cp "$work/student"/ema_*_"$(printf %06d "$student")".pt "$demo/student.pt"

classifier classifier.pt pictures/train pictures/test
classifier unseen_a.pt pictures/train pictures/test --arch plain-24 --epochs 10 --seed 21
classifier unseen_b.pt pictures/train pictures/test --arch mixer-64 --epochs 10 --lr 0.004 --seed 22
classifier unseen_c.pt pictures/train pictures/test --arch dense-12 --epochs 7 --seed 23
classifier tuning.pt pictures/train pictures/test --arch small-12 --epochs 4 --seed 13

# The planted shortcut: two classifiers, and the diffusion model fitted to the marked pictures.
for part in train test; do
    python scripts/plant_mark.py "$work/pictures/$part" "$work/marked/$part"
done
for kind in tainted control; do
    classifier "shortcut/$kind.pt" "marked/train/$kind" "marked/test/$kind" --arch small-12 --epochs 5 --seed 14
done
diffusion ddpm-marked shortcut/ddpm.pt "$fitted" --data_dir "$work/marked/train/tainted" --init_weights "$demo/ddpm.pt" \
    --batch_size "${BATCH:-48}" --lr 0.0001 --ema_rate 0.96

ACE_DEMO=$demo python -m pytest -q tests/end_to_end/test_demo.py -k 'right or small or coats or nearly'
echo "the demo is in $demo and within its bounds; look at $demo/ddpm-samples.png and $work/ddpm/training.html"
