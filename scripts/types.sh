#!/usr/bin/env bash
# Check the types of the rooms that a user's program imports from.   bash scripts/types.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
use_environment '.[test]'

# mypy is shown the folders as a wheel has them, inside the package: in a clone they lie beside it.
package=$(mktemp -d)/ace_counterfactuals
trap 'rm -r "$(dirname "$package")"' EXIT
mkdir "$package"
ln -s "$PWD"/ace_counterfactuals/[!_]* "$PWD"/ace_counterfactuals/__init__.py "$PWD"/{core,models,guided_diffusion} "$package"
cd "$package/.."
python -m mypy --config-file "$OLDPWD/pyproject.toml" --cache-dir "$OLDPWD/.mypy_cache" \
    ace_counterfactuals/{__init__.py,core/{api,base,data,method,training},models,guided_diffusion}
