#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs into a folder of its own and into a staging folder, and builds tests/consumer against the
# installed files only: by the CMake package and by pkg-config, shared and static.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

passed=0
failed=0

# works NAME COMMAND...
works() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
        sed 's/^/  /' "$work/log"
    fi
}

# Each file of an installation, with the parts of its name that versions and systems change removed.
listing() {
    (cd "$1" && find . -not -type d) |
        sed -E 's:^\./::; s:lib/[a-z0-9_]+-linux-[a-z]+/:lib/:; s:^lib64/:lib/:; s:\.so\..*:.so.N:' |
        sort -u
}

cmake_consumer() {
    cmake -S tests/consumer -B "$work/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" &&
        cmake --build "$work/consumer"
}

# pkg_config_consumer NAME [-static]
pkg_config_consumer() {
    # shellcheck disable=SC2046 # the flags are words
    cc -std=c99 -Wall -Wextra -pedantic -Werror tests/consumer/consumer.c -o "$work/$1" "${@:2}" \
        $(pkg-config --cflags --libs ${2:+--static} pageattn)
}

works "make install PREFIX=" make install PREFIX="$prefix"
library_dir=$(dirname "$(find "$prefix" -name libpageattn.a)")
export PKG_CONFIG_PATH=$library_dir/pkgconfig LD_LIBRARY_PATH=$library_dir

works "the files that are installed" diff - <(listing "$prefix") <<'FILES'
bin/pageattn
include/pageattn/pageattn.h
lib/cmake/pageattn/pageattnConfig.cmake
lib/cmake/pageattn/pageattnConfigVersion.cmake
lib/cmake/pageattn/pageattnTargets-release.cmake
lib/cmake/pageattn/pageattnTargets.cmake
lib/libpageattn.a
lib/libpageattn.so
lib/libpageattn.so.N
lib/pkgconfig/pageattn.pc
FILES

works "find_package: build" cmake_consumer
works "find_package: shared" "$work/consumer/consumer_pageattn"
works "find_package: static" "$work/consumer/consumer_pageattn_static"
works "pkg-config: build shared" pkg_config_consumer shared
works "pkg-config: shared" "$work/shared"
works "pkg-config: build static" pkg_config_consumer static -static
works "pkg-config: static" "$work/static"
works "pkg-config: the version of the header" test "$(pkg-config --modversion pageattn)" = \
    "$(sed -n 's/^#define PAGEATTN_VERSION_[A-Z]* //p' include/pageattn/pageattn.h | paste -sd.)"

works "make install DESTDIR=" make install PREFIX=/usr DESTDIR="$work/stage"
works "staged: the same files" diff <(listing "$prefix") <(listing "$work/stage/usr")
works "staged: no trace of the staging folder" test -z "$(grep -rl "$work" "$work/stage")"

# The build folder goes back to the default prefix.
works "make install, default prefix, staged" make install DESTDIR="$work/default"
works "default: the same files" diff <(listing "$prefix") <(listing "$work/default/usr/local")

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
