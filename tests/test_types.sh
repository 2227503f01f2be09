#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The package's own types and what they tell a caller, by mypy (strict) and pyright; and that every
# public name of the installed package has a known type. Needs what `tools/setup python jax` installs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
root=$PWD
passed=0
failed=0

# works NAME COMMAND...
works() {
    local name=$1
    shift
    if "$@" >build/test-types.log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
        sed 's/^/  /' build/test-types.log
    fi
}

# From a folder that is not the checkout, so that it is the installed package that is looked at.
installed() { (cd / && PATH=$root/.venv/bin:$PATH "$@"); }

mkdir -p build
# pyright takes what it cannot find for an error.
has_torch() { .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))'; }

pyright_without_torch() {
    find python/pageattn -name '*.py' -not -name torch.py -exec \
        .venv/bin/pyright --pythonpath .venv/bin/python {} +
}

works "mypy: the package" .venv/bin/mypy
works "mypy: a caller" installed mypy --strict --warn-unused-ignores "$root/tests/typed_use.py"
works "pyright: a caller" installed pyright -p "$root/tests/typed_use.json"
if has_torch; then
    works "pyright: the package" .venv/bin/pyright
    works "pyright: every public name has a type" installed pyright --ignoreexternal \
        --verifytypes pageattn
else
    echo "SKIPPED pyright on pageattn.torch, and on every public name: torch is not installed"
    works "pyright: the package without pageattn.torch" pyright_without_torch
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
