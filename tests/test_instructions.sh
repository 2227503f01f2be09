#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Instructions for each byte of keys and values, counted by callgrind, against the figures kept in
# tests/instructions.txt: a slower kernel is noticed however noisy the machine is.
#
#   tests/test_instructions.sh BUILD_DIR STATIC_DIR            fails where a figure rose by more than 3 %
#   tests/test_instructions.sh BUILD_DIR STATIC_DIR --record   writes the figures anew
#
# The figures belong to a compiler; with another one this says so and checks nothing. callgrind does
# not know AVX-512: those kernels run, linked statically, on the CPU of emulated_cpu.py, which
# counts too.
set -uo pipefail
build=$(cd "$1" && pwd)
static_build=$(cd "$2" && pwd)
cd "$(dirname "$0")" || exit
record=${3:-}
python=../.venv/bin/python
figures=instructions.txt
limit=1.03

cases=(
    "scalar bf16 1 128 16"
    "scalar f32 4 128 16"
    "avx2 bf16 1 128 16"
    "avx2 bf16 4 128 16"
    "avx2 bf16 8 128 16"
    "avx2 f32 4 128 16"
    "avx2 f16 4 128 16"
    "avx2 bf16 3 64 16"
    "avx2 bf16 4 256 64"
    "avx2 bf16 4 128 1"
    "avx512 bf16 1 128 16"
    "avx512 bf16 4 128 16"
    "avx512 bf16 8 128 16"
    "avx512 f32 4 128 16"
    "avx512 f16 4 128 16"
    "avx512 bf16 3 64 16"
    "avx512 bf16 4 256 64"
    "avx512 bf16 4 128 1"
    "fast bf16 1 128 16"
    "fast bf16 4 128 16"
    "fast bf16 8 128 16"
)

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

# The program's output is the bytes; $log/err has a line that ends with the instructions.
count_by_callgrind() {
    valgrind --tool=callgrind --toggle-collect=pageattn_attend \
        --callgrind-out-file="$log/out" "$build/tests/instructions" "$@" 2>"$log/err"
}

count_by_emulator() {
    $python emulated_cpu.py --count pageattn_attend "$static_build/tests/instructions" "$@" 2>"$log/err"
}

needs_emulator() { [[ $1 == avx512* || $1 == fast* ]]; }

# Prints the instructions for each byte of a case: ISA KV_TYPE GROUP HEAD_DIM PAGE_SIZE.
count() {
    local bytes counter=count_by_callgrind
    needs_emulator "$1" && counter=count_by_emulator
    bytes=$($counter "$@") || {
        cat "$log/err" >&2
        return 1
    }
    awk -v b="$bytes" '/(Collected|instructions) :/ { printf "%.4f\n", $NF / b }' "$log/err"
}

compiler=$(sed -n 's/^CMAKE_C_COMPILER:.*=//p' "$build/CMakeCache.txt")
compiler=$("$compiler" -dM -E -x c /dev/null | sed -n 's/^#define __VERSION__ "\(.*\)"$/\1/p')

has_emulator=1
$python -c 'import bochscpu' 2>/dev/null || has_emulator=0

if [ "$record" = --record ]; then
    [ $has_emulator -eq 1 ] || {
        echo "the figures of AVX-512 need an emulated CPU: run \`tools/setup emulator\` first" >&2
        exit 1
    }
    {
        echo "# Instructions for each byte of keys and values: ISA, type, group, head_dim, page size."
        echo "# Written by: tests/test_instructions.sh BUILD_DIR STATIC_DIR --record"
        echo "compiler $compiler"
        for case in "${cases[@]}"; do
            # shellcheck disable=SC2086
            new=$(count $case) || exit 1
            echo "$case $new"
        done
    } >"$log/figures" && mv "$log/figures" $figures
    exit
fi

if [ "compiler $compiler" != "$(grep '^compiler ' $figures)" ]; then
    echo "skipped: the figures are of another compiler ($(grep '^compiler ' $figures), here $compiler)"
    echo "0 passed, 0 failed"
    exit
fi
[ $has_emulator -eq 1 ] ||
    echo "skipped: what needs AVX-512; \`tools/setup emulator\` installs a CPU that has it"
passed=0
failed=0
for case in "${cases[@]}"; do
    needs_emulator "$case" && [ $has_emulator -eq 0 ] && continue
    old=$(sed -n "s/^$case //p" $figures)
    # shellcheck disable=SC2086
    new=$(count $case) || new=nothing
    if awk -v new="$new" -v old="$old" -v limit=$limit \
        'BEGIN { exit !(old > 0 && new > 0 && new <= old * limit) }'; then
        passed=$((passed + 1))
        echo "ok $case: $new instructions a byte, $old before"
    else
        failed=$((failed + 1))
        echo "FAILED $case: $new instructions a byte, ${old:-no figure} before, at most 3 % more are allowed"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
