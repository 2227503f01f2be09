#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The public header alone, as C and as C++, with strict warnings: every compiler and every standard
# that the README names.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

passed=0
failed=0
strict=(-Wall -Wextra -Wpedantic -pedantic-errors -Wshadow -Werror -Iinclude -fsyntax-only)

# compiles NAME COMMAND...
compiles() {
    local name=$1
    shift
    if printf '#include <pageattn/pageattn.h>\n%s\n' "$program" | "$@" "${strict[@]}" -; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
    fi
}

# The inline functions are called, so that they are compiled and not only parsed.
program='int main(void)
{
    pageattn_args args;
    pageattn_context_options options;
    pageattn_args_init(&args);
    pageattn_context_options_init(&options);
    return args.struct_size == 0 || options.struct_size == 0;
}'

for standard in c99 c11 c17; do
    for compiler in gcc clang; do
        compiles "$compiler -std=$standard" $compiler -std=$standard -Wstrict-prototypes -x c
        compiles "$compiler -std=$standard, static" $compiler -std=$standard -DPAGEATTN_STATIC -x c
    done
done
for standard in c++11 c++17 c++20; do
    for compiler in g++ clang++; do
        compiles "$compiler -std=$standard" $compiler -std=$standard -x c++
    done
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
