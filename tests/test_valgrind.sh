#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The C tests under valgrind's memcheck: invalid reads and writes, decisions on uninitialised memory,
# leaks. tests/test_valgrind.sh BUILD_DIR
#
# valgrind hides AVX-512 from the library, so this sees the scalar and the AVX2 kernels. Left out are
# the tests that would take minutes here; the memory sanitizer sees all of them, and AVX-512.
set -uo pipefail
build=$(cd "$1" && pwd)
left_out=' test_accuracy test_changed_inputs test_held_workers test_jax_handler test_math test_same_bits test_threads '
export PAGEATTN_TEST_REDUCED=1
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
status=0

for test in "$build"/tests/test_* "$build"/cli/test_*; do
    name=$(basename "$test")
    [[ -x $test && $left_out != *" $name "* ]] || continue
    # Threads take turns in a fair order, or a spinning worker would hold up the one it waits for.
    if timeout 300 valgrind --quiet --error-exitcode=99 --fair-sched=yes --leak-check=full \
        --errors-for-leak-kinds=definite,indirect,possible "$test" >"$log/out" 2>&1; then
        echo "$name under valgrind"
        tail -n 1 "$log/out"
    else
        echo "FAILED $name under valgrind"
        cat "$log/out"
        grep -qE '^[0-9]+ passed, [1-9][0-9]* failed$' "$log/out" || echo "0 passed, 1 failed"
        status=1
    fi
done
exit "$status"
