#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How much of the library the C tests and the fuzz corpus execute: tests/test_coverage.sh BUILD_DIR
#
# Prints a table, and fails where a line of src/ is never reached, or fewer branches than
# MIN_BRANCHES of a hundred are taken both ways. Left out are the kernels (src/kernel, and the files of
# an instruction set in src/isa), which other tests compare bit by bit. The lines that cannot be
# reached are in tests/coverage.txt, each with its reason; a line of it that is reached is a
# failure too.
#
# BUILD_DIR is of the preset `coverage`, and its tests have run: ctest --preset coverage.
set -uo pipefail
build=$(cd "$1" && pwd) || exit
cd "$(dirname "$0")/.." || exit
MIN_BRANCHES=95

llvm=$(dirname "$(readlink -f "$(command -v clang)")")
profile=$build/all.profdata
LLVM_PROFILE_FILE=$build/profiles/fuzz-%p.profraw
export LLVM_PROFILE_FILE

for target in fuzz/corpus/*/; do
    name=$(basename "$target")
    "$build/fuzz/fuzz_$name" -runs=0 "$target" >"$build/fuzz_$name.log" 2>&1 || {
        echo "FAILED the corpus of $name:"
        tail -20 "$build/fuzz_$name.log"
        exit 1
    }
done
"$llvm/llvm-profdata" merge -sparse -o "$profile" "$build"/profiles/*.profraw || exit
objects=()
while read -r object; do
    objects+=(-object "$object")
done < <(find "$build/CMakeFiles/pageattn_objects.dir/src" -name '*.o')
"$llvm/llvm-cov" export -format=lcov "${objects[@]}" -instr-profile "$profile" >"$build/lcov" || exit

python3 tests/coverage_table.py "$build/lcov" "$MIN_BRANCHES"
