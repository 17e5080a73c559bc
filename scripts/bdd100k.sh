#!/usr/bin/env bash
# BDD100k: forward and slow down, with the l1 and the l2 distance.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

about="BDD100k as in the paper: the queries forward and slow-down, each with the l1 and the l2 distance."
preset=bdd
model_names=(bdd-diffusion.pt unet_bdd.pt)
classifier_names=(bdd-classifier.tar bdd/checkpoint.tar steex_bdd.tar)

queries() {
    explain forward --label_query 0
    explain slow-down --label_query 1
}

main "$@"
