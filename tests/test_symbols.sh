#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the built libraries show and need: tests/test_symbols.sh BUILD_DIR
#   - the shared library exports the functions of the header, each of them and nothing else;
#   - every global symbol of the static library starts with pageattn_;
#   - an instruction set's object defines one constant table and shares no code with the others;
#   - nothing is needed beyond libc, libm and the threads of libc;
#   - the handler for JAX shows one function, and needs the shared library beside it.
set -uo pipefail
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit

passed=0
failed=0

# same NAME EXPECTED ACTUAL
same() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
        diff <(echo "$2") <(echo "$3") | sed 's/^/  /'
    fi
}

declared=$(sed 's://.*::' include/pageattn/pageattn.h | tr '\n' ' ' | sed 's:/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/::g' |
    grep -oE 'PAGEATTN_API [^(;{]*\(' | grep -oE 'pageattn_[a-z0-9_]+\(' | tr -d '(' | sort)
exported=$(nm -D --defined-only "$build/libpageattn.so" | awk '$2 != "A" {print $3}' |
    sed 's/@.*//' | sort)
same "exported functions (< header, > library)" "$declared" "$exported"
same "the header declares functions" yes "$([ "$(echo "$declared" | wc -l)" -gt 10 ] && echo yes)"

others=$(nm -g --defined-only "$build/libpageattn.a" | awk 'NF == 3 {print $3}' |
    grep -v '^pageattn_' | sort)
same "global names without the prefix in libpageattn.a" "" "$others"
# Constants that hold pointers are in .data.rel.ro, which the loader makes read-only.
writable=$(objdump -t "$build/libpageattn.a" |
    grep -E '[[:space:]](\.data|\.bss|\.tdata|\.tbss|\*COM\*)[[:space:]]+0*[1-9a-f]' |
    awk '{print $NF}' | sort)
same "writable variables in libpageattn.a" "" "$writable"

num_tables=0
while read -r table name; do
    object=$(find "$build" -name "$name.c.o" -path '*isa*')
    [ -n "$object" ] || continue
    num_tables=$((num_tables + 1))
    same "the one symbol of isa/$name.c" "pageattn_$table" \
        "$(nm -g --defined-only "$object" | awk '{print $3}')"
    same "weak or common symbols of isa/$name.c" "" \
        "$(nm "$object" | awk '$(NF - 1) ~ /^[WwVvuC]$/ {print $NF}')"
done < <(sed -n 's/^ISA(\([a-z0-9_]*\),.*/kernels_\1 \1\nkernels_\1_l1 \1_l1/p' src/isa/isa.def
    sed -n 's/^FAST(\([a-z0-9_]*\),.*/fast_kernels_\1 \1\nfast_kernels_\1_l1 \1_l1/p' src/isa/fast.def)
same "an object for at least one instruction set" yes "$([ "$num_tables" -gt 0 ] && echo yes)"

needed=$(readelf -d "$build/libpageattn.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
    grep -vE '^(libc|libm|libpthread)\.so\.[0-9]+$|^ld-linux')
same "libraries needed beyond libc, libm and libpthread" "" "$needed"
same "SONAME" "libpageattn.so.0" \
    "$(readelf -d "$build/libpageattn.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')"

handler=$build/libpageattn_jax.so
same "the exported function of the handler for JAX" pageattn_jax_page_attention \
    "$(nm -D --defined-only "$handler" | awk '{print $3}')"
same "libraries that the handler needs" "libc.so.6 libpageattn.so.0" \
    "$(readelf -d "$handler" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | paste -sd ' ')"
same "where the handler looks for them" "\$ORIGIN" \
    "$(readelf -d "$handler" | sed -n 's/.*(RUNPATH).*\[\(.*\)\]/\1/p')"
same "global names of the handler without the prefix" "" \
    "$(find "$build" -path '*pageattn_jax.dir*' -name '*.o' -exec nm -g --defined-only {} + |
        awk 'NF == 3 {print $3}' | grep -v '^pageattn_jax_')"

adapter=$build/libpageattn_torch.so
same "the exported function of the executor for torch" pageattn_torch_parallel_for \
    "$(nm -D --defined-only "$adapter" | awk '{print $3}')"
same "libraries that the executor for torch needs" "" \
    "$(readelf -d "$adapter" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^libc.so.6$')"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
