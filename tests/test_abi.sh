#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The binary interface is the one that abi/libpageattn.xml describes: every function, every type that
# a caller can see, with sizes, offsets and values.
#
#   tests/test_abi.sh            fails where the library differs
#   tests/test_abi.sh --record   writes the description anew
#
# The description holds no folders, no compiler and no types behind the header. It is that of x86-64;
# elsewhere this says so and checks nothing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
build=build/abi
description=abi/libpageattn.xml

if [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: $description describes x86-64, and this is $(uname -m)"
    echo "0 passed, 0 failed"
    exit
fi

# What debug information says of types does not depend on optimisation; -O0 compiles fastest.
if ! { cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_COMPILER=gcc \
    -DCMAKE_C_FLAGS="-O0 -g" -DPAGEATTN_BUILD_TESTS=OFF -DPAGEATTN_BUILD_CLI=OFF &&
    cmake --build $build --target pageattn; } >build/abi.log 2>&1; then
    cat build/abi.log
    exit 1
fi

# Types are compared between two descriptions: against the library itself abidiff would take types
# for private whose place it cannot see.
found=build/abi/libpageattn.xml
abidw --headers-dir include --drop-private-types --exported-interfaces-only --no-corpus-path \
    --no-comp-dir-path --no-show-locs --no-elf-needed --type-id-style hash \
    --out-file $found $build/libpageattn.so || exit

if [ "${1:-}" = --record ]; then
    cp $found $description
elif abidiff --harmless $description $found; then
    echo "1 passed, 0 failed"
else
    echo "FAILED the binary interface differs from $description; CONTRIBUTING.md says what to do"
    echo "0 passed, 1 failed"
    exit 1
fi
