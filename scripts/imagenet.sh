#!/usr/bin/env bash
# ImageNet: three pairs of classes, in both directions, with the l1 and the l2 distance.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

about="ImageNet as in the paper: zebra and sorrel, cheetah and cougar, Egyptian and Persian cat, in both directions
(queries zebra-sorrel, sorrel-zebra, cheetah-cougar, cougar-cheetah, egyptian-persian, persian-egyptian), each with
the l1 and the l2 distance. Without a classifier in --models, main.py fetches torchvision's ResNet-50."
preset=imagenet
model_names=(256x256_diffusion_uncond.pt unet_imagenet.pt)
classifier_names=(resnet50-0676ba61.pth resnet50.pth)
optional[--classifier_path]=1

# pair NAME LABEL NAME LABEL: from each class to the other.
pair() {
    explain "$1-$3" --label_query "$2" --label_target "$4"
    explain "$3-$1" --label_query "$4" --label_target "$2"
}

queries() {
    pair zebra 340 sorrel 339
    pair cheetah 293 cougar 286
    pair egyptian 285 persian 283
}

main "$@"
