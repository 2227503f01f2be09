#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pageattn bench --plot, on sizes so small that the figures mean nothing: tests/test_plot.sh BUILD_DIR
#   - the drawing is whole, needs nothing else, and its labels do not cover each other;
#   - what stands in the way is said before anything is measured, where it can be known;
#   - a file is whole or not there, whatever gnuplot or the disk does.
set -uo pipefail
program=$(cd "$1" && pwd)/cli/pageattn
cd "$(dirname "$0")/.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PAGEATTN_ISA PAGEATTN_NUM_THREADS

passed=0
failed=0
tiny=(bench --batch 1 --min-time 0 --reps 1)
svg=$work/plots/plot.svg
mkdir "$work/plots"

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED $1"
    sed 's/^/  stderr: /' "$work/err" | head -20
}

# run ARGUMENT...: leaves out, err and $status; plots to $svg.
run() {
    rm -f "$work/plots"/*
    "$program" "${tiny[@]}" --plot "$svg" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

err_has() { grep -qE -- "$1" "$work/err"; }

# draws NAME NUMBER-OF-PANELS ARGUMENT...: the drawing is as it should be, and alone in its folder.
draws() {
    run "${@:3}"
    if [ "$status" -eq 0 ] && [ "$(ls "$work/plots")" = plot.svg ] && python3 tests/check_svg.py "$svg" >>"$work/err" &&
        [ "$(grep -cE '>(roofline|bandwidth against)' "$svg")" -eq "$2" ] &&
        ! grep -vE 'pageattn: (warning|note): ' "$work/err"; then
        pass
    else
        fail "$1 (status $status)"
    fi
}

# has NAME PATTERN: the last drawing has such a text.
has() { if grep -qsE -- "$2" "$svg"; then pass; else fail "$1: no /$2/ in the drawing"; fi; }

# fails NAME PATTERN COMMAND...: status 1, such a sentence, and nothing new in the folder.
fails() {
    rm -f "$work/plots"/*
    "${@:3}" >"$work/out" 2>"$work/err" </dev/null
    status=$?
    if [ "$status" -eq 1 ] && err_has "$2" && [ -z "$(ls "$work/plots")" ]; then pass; else fail "$1 (status $status, expected /$2/)"; fi
}

# and_before NAME: nothing had been measured.
and_before() { if [ ! -s "$work/out" ]; then pass; else fail "$1: only after the measuring"; fi; }

# ---- drawings ----

draws "one case" 2 --context 40 --threads 1
has "one case: its name" '>1<'
has "one case: its shape and models" 'gqa h32 kv8 d128 ps16 \(llama3-8b, qwen3-8b\)<'
has "one case: limits" '(sequential|gather) read, (L[1-4]|memory): [0-9.]+ GB/s'
has "one case: multiply-adds" 'multiply-adds, [a-z0-9]+ exact: [0-9.e+]+ G/s'
if err_has 'one context length'; then pass; else fail "one case: a note that says how to get curves"; fi
draws "several lengths" 2 --context 16,200,1000 --threads 1
if ! err_has 'note:'; then pass; else fail "several lengths: no note"; fi
for length in 16 200 1000; do has "several lengths: $length" ">$length<"; done
draws "two numbers of threads have panels each" 4 --context 16,200 --threads 1,2
draws "all models" 2 --model all --context 33,300,chat --threads 1
has "all models: each is named" 'falcon-7b'
has "all models: mixtures have no place on the right" 'ragged and chat: left panel only'
draws "mixtures alone" 2 --context chat --threads 1
has "mixtures alone: what to add" 'context 128,1024,8192 gives'
draws "types, layouts, orders and batches" 2 --context 16,64 --threads 1 --kv-type f32,bf16,f16 --layout hnd_pages,pages_nhd --order shuffled,in-order --batch 2,3 gqa_paged_decode_h4_kv2_d64_ps16_w10_cap30
has "types, layouts, orders and batches: in the names" '>in-order batch 3<'
isas=$("$program" info | awk '/compiled in, available/ {print $1}' | paste -sd,)
draws "instruction sets" 2 --context 16,64 --threads 1 --isa "$isas"
if "$program" info | grep -q 'fast numerics on it: for bf16'; then
    draws "numerics" 2 --context 16,64 --threads 1 --numerics exact,fast
    has "numerics: two limits of multiply-adds" 'multiply-adds, [a-z0-9]+ fast: '
else
    echo "skipped: fast numerics in a drawing; this CPU lacks them"
fi
run --context 40 --threads 1 --format json
cp "$work/out" "$work/old.json"
draws "beside --format and --compare" 2 --context 40 --threads 1 --format json --compare "$work/old.json"
if python3 -m json.tool "$work/out" >/dev/null && grep -q old_gb_per_s "$work/out"; then pass; else fail "beside --format and --compare: the output"; fi

echo old >"$work/here.svg"
chmod 640 "$work/here.svg"
"$program" "${tiny[@]}" --context 40 --threads 1 --plot "$work/here.svg" >/dev/null 2>"$work/err"
if python3 tests/check_svg.py "$work/here.svg"; then pass; else fail "over an old file"; fi
ln -s here.svg "$work/link.svg"
"$program" "${tiny[@]}" --context 40 --threads 1 --plot "$work/link.svg" >/dev/null 2>"$work/err"
if [ -L "$work/link.svg" ] && python3 tests/check_svg.py "$work/link.svg"; then pass; else fail "through a link"; fi

# ---- what stands in the way ----

plot=("$program" "${tiny[@]}" --context 40 --threads 1 --plot)
fails "no gnuplot" 'needs gnuplot.*package gnuplot-nox' env PATH=/nonexistent "${plot[@]}" "$svg"
and_before "no gnuplot"
fails "no such folder" "cannot write $work/none/plot.svg: No such file" "${plot[@]}" "$work/none/plot.svg"
and_before "no such folder"
fails "a folder" "cannot write $work: Is a directory" "${plot[@]}" "$work"
and_before "a folder"
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 555 "$work/locked"
    fails "a folder that may not be written" 'cannot write .*Permission denied' "${plot[@]}" "$work/locked/plot.svg"
fi
[ -w /dev/full ] && fails "a full disk" 'cannot write /dev/full: No space left' "${plot[@]}" /dev/full
fails "a limit on files" '(cannot write .*File too large|no whole SVG)' bash -c 'trap "" XFSZ; ulimit -f 4; "$@" 2>&1 >/dev/null | cat >&2; exit "${PIPESTATUS[0]}"' bash "${plot[@]}" "$svg"

# gnuplot_does COMMAND: a gnuplot that starts, and then does this over the script.
gnuplot_does() {
    printf '#!/bin/bash\n[ "$1" = --version ] && exit\n%s\n' "$1" >"$work/gnuplot"
    chmod +x "$work/gnuplot"
}
gnuplot_does 'cat >/dev/null; exit 3'
fails "a gnuplot that fails" 'gnuplot failed, with status 3' env "PATH=$work:$PATH" "${plot[@]}" "$svg"
gnuplot_does 'exit 3'
fails "a gnuplot that does not read" 'gnuplot failed, with status 3' env "PATH=$work:$PATH" "${plot[@]}" "$svg"
gnuplot_does 'kill -9 $$'
fails "a gnuplot that is killed" 'gnuplot was ended by signal 9' env "PATH=$work:$PATH" "${plot[@]}" "$svg"
gnuplot_does 'cat >/dev/null; echo "<svg>"'
fails "a gnuplot that stops midway" 'gave 6 bytes, which are no whole SVG' env "PATH=$work:$PATH" "${plot[@]}" "$svg"
printf '#!/bin/bash\nexit 5\n' >"$work/gnuplot"
fails "a gnuplot that does not start" 'gnuplot failed, with status 5' env "PATH=$work:$PATH" "${plot[@]}" "$svg"
and_before "a gnuplot that does not start"

run --plot '' && :
if [ "$status" -eq 2 ] && err_has '--plot needs the name of a file'; then pass; else fail "no name"; fi
run --batch "$(seq -s, 41)"
if [ "$status" -eq 2 ] && err_has 'at most 40 combinations'; then pass; else fail "more than can be told apart"; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
