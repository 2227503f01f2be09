#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What stands against exploits in the built files: tests/test_hardening.sh BUILD_DIR
# PAGEATTN_HARDEN in CMakeLists.txt asks for it.
set -uo pipefail
build=$(cd "$1" && pwd)
library=$build/libpageattn.so
program=$build/cli/pageattn

passed=0
failed=0

# check NAME yes|no FILE READELF_OPTION PATTERN: does what readelf prints have the pattern?
check() {
    local found=no
    grep -qE -- "$5" <<<"$(LC_ALL=C readelf -W "$4" "$3")" && found=yes
    if [ "$found" = "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $(basename "$3"): $1"
    fi
}

for file in "$library" "$program"; do
    check "relocations are read-only" yes "$file" -l 'GNU_RELRO'
    check "symbols are bound at the start" yes "$file" -d '\(FLAGS(_1)?\).*NOW'
    check "the stack is not executable" yes "$file" -l 'GNU_STACK.* RW +0x'
    check "no segment is writable and executable" no "$file" -l 'LOAD.* RWE '
    check "code has no relocations" no "$file" -d 'TEXTREL'
    check "no search path of its own" no "$file" -d '(RPATH|RUNPATH)'
    check "the stack protector" yes "$file" --dyn-syms '__stack_chk_fail'
    check "fortified calls of libc" yes "$file" --dyn-syms '__[a-z]+_chk'
done
check "a position-independent executable" yes "$program" -d '\(FLAGS_1\).*PIE'

# Of the library's own objects: the linker needs the property of libc's start files too.
objects=0
while read -r object; do
    objects=$((objects + 1))
    check "indirect jumps land on marks" yes "$object" -n 'IBT, SHSTK'
done < <(find "$build/CMakeFiles/pageattn_objects.dir" -name '*.o')
if [ "$objects" -eq 0 ]; then
    failed=$((failed + 1))
    echo "FAILED no object found under $build"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
