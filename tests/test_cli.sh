#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The program pageattn, on sizes so small that nothing it says of speed counts: tests/test_cli.sh BUILD_DIR
#   - each format holds what it should, and is well-formed;
#   - a wrong command line gives one sentence on standard error, nothing on standard output, status 2;
#   - what can't be done (memory, files, a full disk) gives a sentence and status 1;
#   - no file given to --compare, however broken, ends the program in any other way.
set -uo pipefail
program=$(cd "$1" && pwd)/cli/pageattn
wrong_program=$(dirname "$program")/pageattn_wrong
cd "$(dirname "$0")/.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PAGEATTN_ISA PAGEATTN_NUM_THREADS

passed=0
failed=0
tiny=(bench gqa_paged_decode_h4_kv2_d64_ps16 --batch 2 --context 40 --min-time 0 --reps 1 --threads 1)

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED $1"
    sed 's/^/  stdout: /' "$work/out" | head -20
    sed 's/^/  stderr: /' "$work/err" | head -20
}

# run ARGUMENT...: leaves out, err and $status.
run() {
    "$program" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

# holds NAME CONDITION...: the condition is a command, after a run with status 0.
holds() {
    if [ "$status" -eq 0 ] && "${@:2}" >"$work/condition" 2>&1; then
        pass
    else
        fail "$1 (status $status)"
    fi
}

# out_has PATTERN: in the output, as grep -E says.
out_has() { grep -qE -- "$1" "$work/out"; }
err_has() { grep -qE -- "$1" "$work/err"; }

# refused STATUS PATTERN ARGUMENT...: the sentence fits the pattern.
refused() {
    run "${@:3}"
    if [ "$status" -eq "$1" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] && err_has "$2"; then
        pass
    else
        fail "pageattn ${*:3} (status $status, expected $1 and /$2/)"
    fi
}

# Prints a line `ok` if the python expression over `d`, the JSON on the output, is true.
json_is() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else 1)' "$work/out" "$1"; }

widest() { awk '{ if (length($0) > widest) widest = length($0) } END { exit !(widest <= 100) }' "$work/out"; }

# ---- help, version, info ----

run --version
holds "--version" out_has "^pageattn $(sed -n 's/^#define PAGEATTN_VERSION_[A-Z]* //p' include/pageattn/pageattn.h | paste -sd. | sed 's/\./\\./g')$"
run --help
holds "--help" out_has '^  bench '
run bench --help
holds "bench --help" out_has '--kv-type LIST'
run bench --list
holds "bench --list: each model" test "$(grep -c '_paged_decode_h[0-9]' "$work/out")" -ge "$(grep -c '^MODEL(' cli/models.def)"
run info
holds "info: instruction sets" test "$(grep -cE '^  [a-z0-9]+ +(compiled in|not in this build)' "$work/out")" -eq "$(grep -c '^ISA(' src/isa/isa.def)"
holds "info: the chosen one" out_has '^  chosen: [a-z0-9]+, the best'
holds "info: prefetches" out_has '^  prefetches into L[12], [a-zL]'
holds "info: fast numerics" out_has '^  fast numerics on it: (for bf16 keys and values|none)$'
holds "info: threads" out_has '^threads: [0-9]+, from '
PAGEATTN_ISA=scalar run info
holds "info: PAGEATTN_ISA" out_has 'chosen: scalar, because PAGEATTN_ISA'
PAGEATTN_NUM_THREADS=1 run info
holds "info: PAGEATTN_NUM_THREADS" out_has '^threads: 1, from '
PAGEATTN_ISA=sse9 run info
if [ "$status" -eq 1 ] && err_has 'PAGEATTN_ISA is "sse9"'; then pass; else fail "info: an unknown PAGEATTN_ISA"; fi

# ---- formats ----

run "${tiny[@]}"
holds "table: a heading" out_has '^gqa_paged_decode_h4_kv2_d64_ps16 '
holds "table: a row" out_has '^bf16 +2 x 40 +1 '
holds "table: 100 columns" widest
run "${tiny[@]}" --format md
holds "md: a row" out_has '^\| gqa_paged_decode_h4_kv2_d64_ps16 \|.* bf16 \| 2 x 40 \|'
holds "md: as many cells in each row" test "$(grep '^|' "$work/out" | tr -cd '|\n' | sort -u | wc -l)" -eq 1
run "${tiny[@]}" --format csv
holds "csv: header and a row" test "$(wc -l <"$work/out")" -eq 2
holds "csv: reads back" python3 -c 'import csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
assert len(rows) == 1 and None not in rows[0] and float(rows[0]["gb_per_s"]) > 0
assert rows[0]["compiler"] and float(rows[0]["cpu_mhz"]) >= 0 and int(rows[0]["usable_cpus"]) > 0' "$work/out"
run "${tiny[@]}" --format json --kv-type f32,bf16,f16 --order shuffled,in-order --page-size 1,16
holds "json: well-formed" python3 -m json.tool "$work/out"
holds "json: all combinations" json_is 'len({(r["kv_type"], r["page_order"], r["workload"]) for r in d["results"]}) == 12'
holds "json: positive figures" json_is 'all(r[k] > 0 for r in d["results"] for k in ("gb_per_s", "us_per_call", "us_p95", "tokens_per_s", "of_sequential", "of_gather", "of_fma"))'
holds "json: bytes attended to" json_is 'all(r["kv_bytes"] == 2 * 40 * 2 * 2 * 64 * (4 if r["kv_type"] == "f32" else 2) for r in d["results"])'
holds "no progress where standard error is no terminal" test ! -s <(grep -v warning: "$work/err")
cp "$work/out" "$work/old.json"

# ---- what is computed ----

isas=$("$program" info | awk '/compiled in, available/ {print $1}' | paste -sd,)
run "${tiny[@]}" --format json --isa "$isas" --layout hnd_pages,pages_hnd,pages_nhd --threads 2
holds "each instruction set, layout and thread count" json_is "len(d['results']) == 6 * len('$isas'.split(','))"
run bench --model all --batch 1 --context 33 --min-time 0 --reps 1 --threads 1 --format json
holds "each shape of a model, once" json_is "len(d['results']) == $(grep '^MODEL(' cli/models.def | cut -d, -f2- | sort -u | wc -l)"
holds "each case has its own name" json_is 'len({r["workload"] for r in d["results"]}) == len(d["results"])'
run bench gqa_paged_decode_h4_kv2_d64_ps16_w10_cap30 --batch 3 --context 300,chat --min-time 0 --reps 1 --threads 2 --format json
holds "a window attends to its tokens only" json_is 'd["results"][0]["kv_bytes"] == 2 * 10 * 3 * 2 * 64 * 2'
run bench mqa_paged_decode_h2_kv1_d64_ps16 --context ragged --min-time 0 --reps 1 --format json
holds "ragged" json_is 'd["results"][0]["kv_bytes"] == 2 * (100000 + 31 * 50) * 64 * 2'
run bench mha_paged_decode_h2_kv2_d72_ps5 --batch=2 --context=77 --min-time=0 --reps=1 --threads=1 --format=json --kv-type=f32,f16
holds "--option=value; rows that are not whole lines" json_is 'len(d["results"]) == 2'

# ---- --numerics ----

refused 2 '--numerics quick: it must be exact or fast' bench --numerics quick
refused 1 '--numerics fast: there is none for scalar on this CPU' "${tiny[@]}" --numerics fast --isa scalar
fast_isa=$("$program" info | awk '/chosen:/ {sub(",", "", $2); isa = $2} /fast numerics on it: for bf16/ {print isa}')
if [ -n "$fast_isa" ]; then
    refused 1 "on $fast_isa there is none for f16 keys and values, only for bf16" "${tiny[@]}" --numerics exact,fast --kv-type bf16,f16
    run "${tiny[@]}" --numerics exact,fast --threads 1,2 --format json
    holds "numerics: both, each under its name" json_is '[(r["numerics"], r["threads"]) for r in d["results"]] == [("exact", 1), ("exact", 2), ("fast", 1), ("fast", 2)]'
    cp "$work/out" "$work/fast.json"
    run "${tiny[@]}" --numerics fast --format json --compare "$work/fast.json"
    holds "numerics: compared with the same" json_is "d['results'][0]['old_gb_per_s'] == json.load(open('$work/fast.json'))['results'][2]['gb_per_s']"
    run "${tiny[@]}" --numerics fast --format json --compare "$work/old.json"
    holds "numerics: and with no other" json_is 'd["results"][0]["old_gb_per_s"] is None'
    for format in table md csv; do
        run "${tiny[@]}" --numerics fast --format $format
        holds "numerics: in $format" out_has '[, |"]fast[", ]'
    done
else
    refused 1 '--numerics fast: there is none for' "${tiny[@]}" --numerics fast
    echo "skipped: rows of fast numerics; this CPU lacks them"
fi

# ---- terminals ----

# What standard error gets if it is a terminal of 60 columns, and standard output is none.
on_terminal() {
    TERM=$1 python3 - "$program" "${tiny[@]}" <<'PYTHON' >"$work/err"
import fcntl, os, pty, struct, subprocess, sys, termios
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
os.close(theirs)
text = b""
while True:
    try:
        more = os.read(ours, 65536)
    except OSError:
        break
    if not more:
        break
    text += more
assert child.wait() == 0
sys.stdout.write(text.decode().replace("\r\n", "\n").replace("\r\033[K", "\n<erase>"))
PYTHON
}
progress() { grep '^<erase>[0-9]*/[0-9]* ' "$work/err"; }
on_terminal xterm
status=$?
holds "progress on a terminal" grep -qE '^<erase>1/1 gqa_paged_decode' "$work/err"
holds "progress does not wrap" test "$(progress | sed 's/<erase>//' | wc -L)" -eq 59
holds "no colours" test "$(grep -c $'\033' "$work/err")" -eq 0
on_terminal dumb
status=$?
holds "no progress on a dumb terminal" test -z "$(grep -v '^pageattn: warning: ' "$work/err")"

# ---- --compare ----

run "${tiny[@]}" --format json --compare "$work/old.json"
holds "compare: found" json_is 'd["results"][0]["old_gb_per_s"] > 0'
run "${tiny[@]}" --compare "$work/old.json"
holds "compare: in the table" out_has 'was .* GB/s: new/old '
run "${tiny[@]}" --context 41 --format json --compare "$work/old.json"
holds "compare: another case is not found" json_is '[r["old_gb_per_s"] is None for r in d["results"]] == [False, True]'
holds "compare: and that is said" err_has '1 of 2 cases are not in'

refused 1 'cannot open .*No such file' "${tiny[@]}" --compare "$work/none.json"
refused 1 'cannot read .*directory' "${tiny[@]}" --compare "$work"
compare_text() {
    printf "$2" >"$work/bad.json"
    refused 1 "$1" "${tiny[@]}" --compare "$work/bad.json"
}
compare_text 'not JSON, at byte 0: a value' ''
compare_text 'a value was expected' '{"a": nan}'
compare_text 'starts with 0' '[01]'
compare_text 'a digit' '[1.]'
compare_text 'a digit' '[-]'
compare_text 'not closed' '{"a'
compare_text 'not closed' '"\001"'
compare_text 'not closed' '"a\000b"'
compare_text 'unknown escape' '"\\x"'
compare_text 'surrogate' '"\\ud800"'
compare_text 'hexadecimal' '"\\u12g4"'
compare_text 'holds a NUL' '"\\u0000"'
compare_text 'after the value' '{}\000{}'
compare_text 'comma or a closing' '[1 2]'
compare_text 'comma or a closing' '{"a": 1'
compare_text 'a string was expected' '{"a": 1,}'
compare_text 'colon' '{"a" 1}'
compare_text 'too deeply' "$(printf '[%.0s' $(seq 1000))"
compare_text 'not a result of pageattn bench' '[]'
compare_text 'not a result of pageattn bench' '{"format": "pageattn bench 2", "results": 3}'
head -c 17000000 /dev/zero | tr '\0' ' ' >"$work/large.json"
refused 1 'too large' "${tiny[@]}" --compare "$work/large.json"
printf '{"format": "pageattn bench 2", "results": [null, [], 1, {"workload": 3}, {"workload": {}}]}' >"$work/odd.json"
run "${tiny[@]}" --compare "$work/odd.json"
holds "compare: odd results match nothing" out_has 'not in the old file'

# Every cut of a good file, and every byte of its start changed, gives status 0 or 1.
head -c 600 "$work/old.json" >"$work/start"
crashes=$(python3 - "$program" "$work/start" "$work/bad.json" "${tiny[@]}" <<'PYTHON'
import subprocess, sys
program, start, bad, *arguments = sys.argv[1:]
text = open(start, "rb").read()
texts = [text[:i] for i in range(0, len(text), 23)]
texts += [text[:i] + bytes([(7 * i) % 256]) + text[i + 1:] for i in range(0, len(text), 17)]
for case in texts:
    open(bad, "wb").write(case)
    status = subprocess.run([program, *arguments, "--compare", bad], capture_output=True).returncode
    if status not in (0, 1):
        print(status, case)
PYTHON
)
if [ -z "$crashes" ]; then pass; else
    fail "compare: broken files"
    echo "$crashes"
fi

# ---- wrong command lines ----

refused 2 'a command is needed'
refused 2 'unknown command frob' frob
refused 2 'unknown command --frob' --frob
refused 2 'info takes no arguments' info frob
refused 2 'unknown option --frob' bench --frob
refused 2 'unknown option --frob=1' bench --frob=1
refused 2 '--batch needs a value' bench --batch
refused 2 '--batch 0: .*\[1, ' bench --batch 0
refused 2 '--batch -1' bench --batch -1
refused 2 '--batch 99999999999999999999' bench --batch 99999999999999999999
refused 2 '--batch : ' bench --batch 1,,2
refused 2 '--batch 1x' bench --batch 1x
refused 2 '--context short: ' bench --context short
refused 2 '--context 0: ' bench --context 0
refused 2 '--page-size 0: ' bench --page-size 0
refused 2 '--kv-type f64: ' bench --kv-type f64
refused 2 '--threads none: ' bench --threads none
refused 2 '--isa sse9: ' bench --isa sse9
refused 2 '--layout dnh: ' bench --layout dnh
refused 2 '--order random: ' bench --order random
refused 2 '--format xml: ' bench --format xml
refused 2 '--reps 0: ' bench --reps 0
refused 2 '--min-time x: ' bench --min-time x
refused 2 '--min-time nan: ' bench --min-time nan
refused 2 'a list has at most' bench --batch "$(seq -s, 200)"
refused 2 'more than .* workloads' bench --model "$(yes gpt2 | head -100 | paste -sd,)"
refused 2 'no model is named "llama99"' bench --model llama99
refused 2 '"frob" is no workload' bench frob
refused 2 'lacks kv' bench gqa_paged_decode_h32_d128
refused 2 'says h twice' bench gqa_paged_decode_h32_h32_kv8_d128
refused 2 'is none of' bench gqa_paged_decode_h32_kv8_d128_zz3
refused 2 'after d must be in' bench gqa_paged_decode_h32_kv8_d4096
refused 2 'after h must be in' bench gqa_paged_decode_h_kv8_d128
refused 2 'not a multiple of kv' bench gqa_paged_decode_h32_kv5_d128
refused 2 'd100 is not a multiple of 8' bench gqa_paged_decode_h32_kv8_d100
refused 2 'mqa with h32 and kv8' bench mqa_paged_decode_h32_kv8_d128

# ---- what goes wrong while it runs ----

# The same program over a library whose results from call number $2 on are off by one bit.
wrong_result() {
    PAGEATTN_TEST_WRONG_CALL=$2 "$wrong_program" "${tiny[@]}" --reps 30 --kv-type "$4" --format json >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" -eq "$1" ] && { [ "$status" -eq 0 ] || err_has "$3"; } && python3 -m json.tool "$work/out" >/dev/null; then pass; else fail "a wrong result from call $2 on (status $status)"; fi
}
for type in f32 bf16 f16; do
    wrong_result 0 0 '' $type
    wrong_result 1 1 'wrong result: out\[1\]\[3\]\[63\] is .*, the reference says' $type
    wrong_result 1 20 'wrong result: a later call gave other bits' $type
done
if [ -n "$fast_isa" ]; then
    tiny+=(--numerics fast)
    wrong_result 0 0 '' bf16
    wrong_result 1 1 'wrong result: out\[1\]\[3\]\[63\] is .*, the reference says' bf16
    unset 'tiny[-1]' 'tiny[-1]'
fi

run bench --context 1000000000 --batch 65536 --format json
if [ "$status" -eq 1 ] && err_has '(out of memory|can count)' && python3 -m json.tool "$work/out" >/dev/null; then pass; else fail "too large for the machine"; fi
if ! grep -qa __asan_init "$program" && ! grep -qa __tsan_init "$program"; then # these need terabytes of addresses
    (ulimit -v 200000 && "$program" bench --context 65536 --batch 8 --threads 1) >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" -eq 1 ] && err_has 'out of memory: .* needs 2.0 GiB.*ulimit'; then pass; else fail "out of memory (status $status)"; fi
fi
if [ -w /dev/full ]; then
    "$program" "${tiny[@]}" >/dev/full 2>"$work/err"
    status=$?
    if [ "$status" -eq 1 ] && err_has 'cannot write to standard output'; then pass; else fail "a full disk (status $status)"; fi
fi
"$program" "${tiny[@]}" --format csv 2>"$work/err" | true
status=${PIPESTATUS[0]}
if { [ "$status" -eq 141 ] || [ "$status" -eq 0 ]; } && ! err_has 'cannot write'; then pass; else fail "a closed pipe (status $status)"; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
