#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The library on processors that this machine is not: under qemu's user emulation, and for AVX-512, which
# qemu does not know, on the CPU of tests/emulated_cpu.py.
#
#   tests/test_emulated.sh aarch64   64-bit Arm, from the first generation on: NEON and scalar
#   tests/test_emulated.sh x86       x86-64 CPUs without AVX-512, AVX2 or AVX: each gets the table that
#                                    it can run, dies of nothing, and gives the same bits
#   tests/test_emulated.sh avx512    CPUs with AVX-512, with and without BF16, and systems that save its
#                                    registers or not; the kernels' bits, where this CPU has none of it
#   tests/test_emulated.sh others    s390x, which is big-endian; and that 32-bit is refused
#
# aarch64 and others cross-build a preset; x86 needs build/gcc, and avx512 build/static. The presets leave
# out test_executor, because qemu 7.2 itself fails when a program of several threads forks;
# test_jax_handler, which comes near its own limit of time here; and for s390x test_accuracy and
# test_same_bits, which take four minutes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

passed=0
failed=0
avx512='vpord %%zmm0, %%zmm0, %%zmm0'

# check NAME COMMAND...: one case; its output is shown if it fails.
check() {
    local output
    if output=$("${@:2}" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s\n%s\n' "$1" "$output"
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}

build() { cmake --preset "$1" >/dev/null && cmake --build --preset "$1" -- --quiet; }

# info_says LINE EMULATOR...: `pageattn info` of that build on that CPU has a line that begins so.
info_says() {
    local info
    info=$("${@:2}" info) || return
    grep -q "^  $1" <<<"$info" && return
    echo "$info"
    return 1
}

chooses() { info_says "chosen: $1, the best" "${@:2}"; }

# probe INSTRUCTION: the name of a program that is this one instruction.
probe() {
    local program="$work/${1%% *}"
    [ -x "$program" ] ||
        echo "int main(void) { __asm__ volatile(\"$1\" : : : \"xmm0\"); return 0; }" |
        cc -x c - -static -o "$program" && echo "$program"
}

dies_of_illegal_instruction() {
    "$@" 2>/dev/null
    [ $? -eq 132 ] # 128 + SIGILL
}

# refuses SENTENCE COMMAND...
refuses() {
    local output
    if output=$("${@:2}" 2>&1); then
        echo "not refused"
        return 1
    fi
    tr -s ' \n' ' ' <<<"$output" | grep -qF -- "$1" && return # CMake breaks lines
    echo "$output"
    return 1
}

# ---- 64-bit Arm ----

test_aarch64() {
    local cpu
    build aarch64 || return
    for cpu in cortex-a53 neoverse-n1 max; do
        export QEMU_CPU=$cpu
        check "golden hashes on $cpu" ctest --preset aarch64 -R '^test_(golden|lanes)$'
        check "NEON on $cpu" chooses neon qemu-aarch64 -L /usr/aarch64-linux-gnu \
            build/aarch64/cli/pageattn
    done
    finish
    ctest --preset aarch64 -V && [ "$failed" -eq 0 ]
}

# ---- x86-64 ----

# runs_on CPU INSTRUCTION. Unless the emulator stops a program on CPUs that lack its instruction, no
# other test here means anything.
runs_on() {
    local program
    program=$(probe "$2") && on_cpu "$1" "$program"
}

dies_on() { dies_of_illegal_instruction runs_on "$@"; }

# qemu warns of features that it can't emulate; the library uses none of them.
on_cpu() {
    qemu-x86_64 -cpu "$@" 2> >(grep -v "TCG doesn't support requested feature" >&2)
}

test_x86() {
    local avx='vaddps %%ymm0, %%ymm0, %%ymm0' avx2='vpaddd %%ymm0, %%ymm0, %%ymm0'
    local cpu
    if [ "$(uname -m)" != x86_64 ]; then
        echo "skipped: what this machine builds is not for x86-64"
        finish
        return
    fi
    work=$(mktemp -d) || return
    trap 'rm -r "$work"' EXIT

    check "AVX is illegal on Nehalem" dies_on Nehalem "$avx"
    check "AVX2 is illegal on SandyBridge" dies_on SandyBridge "$avx2"
    check "AVX2 is legal on Haswell" runs_on Haswell "$avx2"
    check "AVX-512 is illegal on Haswell" dies_on Haswell "$avx512"

    for cpu in qemu64 Nehalem SandyBridge IvyBridge Haswell,-avx2 Haswell,-fma Haswell,-f16c \
        Haswell,-xsave; do
        check "$cpu takes scalar" chooses scalar on_cpu "$cpu" build/gcc/cli/pageattn
    done
    for cpu in Haswell EPYC; do
        check "$cpu takes AVX2" chooses avx2 on_cpu "$cpu" build/gcc/cli/pageattn
    done
    # Whoever compiles the sources without CMake must be told too.
    check "x87 arithmetic is refused in words" refuses \
        "float arithmetic must be rounded to float at every step" \
        cc -std=c11 -mfpmath=387 -Iinclude -Isrc -c src/isa/scalar.c -o "$work/scalar.o"
    finish
    [ "$failed" -eq 0 ] || return

    # test_contexts tries to force what the CPU lacks.
    for cpu in Nehalem SandyBridge Haswell; do
        echo "on $cpu:"
        on_cpu "$cpu" build/gcc/tests/test_golden &&
            on_cpu "$cpu" build/gcc/tests/test_lanes &&
            on_cpu "$cpu" build/gcc/tests/test_contexts &&
            on_cpu "$cpu" build/gcc/tests/test_wrong_calls || return
    done
}

# ---- AVX-512 ----

on_avx512_cpu() { .venv/bin/python tests/emulated_cpu.py "$@"; }

fast_is() { info_says "fast numerics on it: $1" "${@:2}"; }

test_avx512() {
    local pageattn=build/static/cli/pageattn vpord
    .venv/bin/python -c 'import bochscpu' 2>/dev/null || {
        echo "skipped: no emulated CPU with AVX-512; \`tools/setup emulator\` installs one"
        finish
        return
    }
    work=$(mktemp -d) || return
    trap 'rm -r "$work"' EXIT
    vpord=$(probe "$avx512") || return

    check "AVX-512 is legal" on_avx512_cpu "$vpord"
    check "AVX-512 is illegal where the system saves no ZMM" dies_of_illegal_instruction \
        on_avx512_cpu --without zmm "$vpord"
    check "AVX-512 is taken" chooses avx512 on_avx512_cpu $pageattn
    check "BF16 is taken" fast_is "for bf16 keys and values" on_avx512_cpu $pageattn
    check "without BF16 AVX-512 is taken" chooses avx512 on_avx512_cpu --without bf16 $pageattn
    check "without BF16 nothing is fast" fast_is none on_avx512_cpu --without bf16 $pageattn
    check "without ZMM AVX2 is taken" chooses avx2 on_avx512_cpu --without zmm $pageattn
    check "without YMM scalar is taken" chooses scalar on_avx512_cpu --without ymm $pageattn
    finish
    [ "$failed" -eq 0 ] || return

    if grep -qw avx512_bf16 /proc/cpuinfo; then
        echo "skipped: golden hashes and mathematics; this CPU has AVX-512 and BF16 itself"
        return
    fi
    # Not test_lanes: this CPU narrows 2^-25, half of the least f16, to that and not to 0.
    export PAGEATTN_ISA=avx512
    on_avx512_cpu build/static/tests/test_golden && on_avx512_cpu build/static/tests/test_math
}

# ---- others ----

# Configures for a processor that only clang need know: no C library for it is looked for.
configures_for() {
    cmake -G Ninja -B "$work/$1" -D CMAKE_SYSTEM_NAME=Linux -D CMAKE_C_COMPILER=clang \
        -D CMAKE_C_COMPILER_TARGET="$1" -D CMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY
}

test_others() {
    local target
    work=$(mktemp -d) || return
    trap 'rm -r "$work"' EXIT
    for target in i686-linux-gnu armv7-linux-gnueabihf; do
        check "$target is refused in words" refuses \
            "pageattn needs 64-bit addresses; this compiler's pointers have 4 bytes." \
            configures_for "$target"
    done
    build s390x || return
    check "s390x takes scalar" chooses scalar qemu-s390x -L /usr/s390x-linux-gnu \
        build/s390x/cli/pageattn
    finish
    ctest --preset s390x -V && [ "$failed" -eq 0 ]
}

unset PAGEATTN_ISA PAGEATTN_NUM_THREADS
export PAGEATTN_TEST_REDUCED=1
case ${1:-} in
aarch64 | x86 | avx512 | others) "test_$1" ;;
*)
    echo "usage: tests/test_emulated.sh aarch64|x86|avx512|others" >&2
    exit 2
    ;;
esac
