#!/usr/bin/env bash
# Fetch the networks of the paper, each verified by loading it: download-weights.sh NAME... --to DIR; see --help.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_packages
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$root/scripts/download_weights.py" "$@"
