#!/usr/bin/env bash
# compute_FID.sh OUTPUT EXP [TMP] [--device cpu] [--inception-weights FILE] [...]
#
# TMP, where the original program gathered copies of the pictures, is accepted and not used: the folders are read in
# place. PYTHON names the interpreter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
splits=0
# shellcheck source=scripts/frechet.sh
. "$root/scripts/frechet.sh"
