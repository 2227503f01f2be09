#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# However a user compiles it, the bits are the same: tests/test_golden.c over a library built with
# other flags than ours. The build type is None, so that these are the only flags beside those that
# CMakeLists.txt insists on.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

passed=0
failed=0

# same_bits NAME COMPILER FLAGS
same_bits() {
    local build=build/variant-$1
    if cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_COMPILER="$2" \
        -DCMAKE_C_FLAGS="$3" -DPAGEATTN_BUILD_CLI=OFF >"$build.log" 2>&1 &&
        cmake --build "$build" --target test_golden >>"$build.log" 2>&1 &&
        "$build/tests/test_golden" >>"$build.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok $2 $3: $(tail -n 1 "$build.log")"
    else
        failed=$((failed + 1))
        echo "FAILED $2 $3"
        cat "$build.log"
    fi
}

mkdir -p build
same_bits O0 gcc "-O0"
same_bits O3 gcc "-O3"
same_bits lto gcc "-O2 -flto"
# Contraction would change bits, if the library let these flags ask for it.
same_bits native gcc "-O2 -march=native -ffp-contract=fast"
same_bits clang-native clang "-O3 -march=native -ffp-contract=fast -flto"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
