#!/usr/bin/env bash
# CelebA: smile and age, with the l1 and the l2 distance.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

about="CelebA as in the paper: the queries smile and age, each with the l1 and the l2 distance."
preset=celeba
model_names=(celeba-diffusion.pt unet_celeba.pt)
classifier_names=(celeba-classifier.pth dive.pth)
oracle_names=(celeba-oracle.pth oracle_celeba.pth)

queries() {
    explain smile --label_query 31
    explain age --label_query 39
}

main "$@"
