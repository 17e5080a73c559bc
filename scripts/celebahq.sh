#!/usr/bin/env bash
# CelebA-HQ: smile and age, with the l1 and the l2 distance.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

about="CelebA-HQ as in the paper: the queries smile and age, each with the l1 and the l2 distance."
preset=celebahq
model_names=(celebahq-diffusion.pt unet_celebahq.pt)
classifier_names=(celebahq-classifier.tar celebamaskhq/checkpoint.tar steex_hq.tar)
oracle_names=(celebahq-oracle.tar oracle_hq.tar)

queries() {
    explain smile --label_query 31
    explain age --label_query 39
}

main "$@"
