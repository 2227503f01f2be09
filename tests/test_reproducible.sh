#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same sources give the same bytes: builds the library and the program from a copy in another
# folder, in another language and time zone, and compares. tests/test_reproducible.sh BUILD_DIR
# BUILD_DIR is built from here in the preset gcc.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/another/folder

passed=0
failed=0

mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard |
    while read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    xargs -0 cp --parents -t "$copy" || exit
cp -r "$(git rev-parse --absolute-git-dir)" "$copy/.git" || exit # the program names its commit

if ! (cd "$copy" && export LC_ALL=C.UTF-8 TZ=Asia/Kathmandu && umask 077 &&
    cmake --preset gcc -B "$work/build" -DPAGEATTN_BUILD_TESTS=OFF &&
    cmake --build "$work/build") >"$work/log" 2>&1; then
    cat "$work/log"
    echo "0 passed, 1 failed"
    exit 1
fi

for file in libpageattn.so libpageattn.a cli/pageattn; do
    if cmp "$build/$file" "$work/build/$file"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $file differs"
    fi
done
if grep -qF "$work" "$work/build/libpageattn.so" "$work/build/libpageattn.a" \
    "$work/build/cli/pageattn"; then
    failed=$((failed + 1))
    echo "FAILED a built file names the folder that it was built in"
else
    passed=$((passed + 1))
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
