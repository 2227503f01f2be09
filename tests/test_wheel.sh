#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a user gets: the source distribution builds one manylinux wheel without the network, and that
# wheel, installed into an environment of its own, runs the README and has C programs built against it.
# Needs what `tools/setup build python test` installs, and the network for NumPy.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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

# without_network COMMAND...: in a network namespace of its own, where that is allowed.
without_network() {
    if unshare --net true 2>/dev/null; then
        unshare --net "$@"
    elif unshare --map-root-user --net true 2>/dev/null; then
        unshare --map-root-user --net "$@"
    else
        echo "SKIPPED the check that nothing is loaded: unshare --net is not allowed here" >&3
        "$@"
    fi
}

make_sdist() { .venv/bin/python -m build --sdist --no-isolation --outdir "$work/sdist" .; }

make_wheel() {
    without_network .venv/bin/python -m pip wheel --no-deps --no-build-isolation --no-index \
        --wheel-dir "$work/wheel" "$work"/sdist/pageattn-*.tar.gz
}

one_manylinux_wheel() {
    wheels=("$work"/wheel/*)
    echo "${wheels[*]##*/}"
    [ ${#wheels[@]} -eq 1 ] && [[ ${wheels[0]##*/} == pageattn-*-py3-none-manylinux_*.whl ]]
}

# auditwheel names the same tag for what is in the wheel as the wheel does.
clean() {
    local shown tag
    shown=$(.venv/bin/python -m auditwheel show "${wheels[0]}") || return
    echo "$shown"
    tag=$(sed -n 's/.*tag: "\(.*\)".*/\1/p' <<<"$shown")
    [[ -n $tag && ${wheels[0]} == *-$tag.whl ]]
}

# From elsewhere than the checkout.
python() { (cd "$work" && "$work/venv/bin/python" "$@"); }

readme_examples() {
    python - "$root" <<'PYTHON'
import sys
sys.path.insert(0, f"{sys.argv[1]}/tests")
import test_readme
examples = test_readme.examples((test_readme.ROOT / "README.md").read_text())
ours = [(source, printed) for language, source, printed in examples
        if language == "python" and "jax" not in source and "torch" not in source]
assert ours
for source, printed in ours:
    why = test_readme.why_example_fails("python", source, printed, None)
    assert why is None, why
PYTHON
}

ask() { python -c "import pageattn; print(pageattn.$1())"; }

# By the paths that the package names.
c_program() {
    cc -std=c99 -Wall -Wextra -pedantic -Werror tests/consumer/consumer.c -o "$work/by_path" \
        "-I$(ask get_include)" "$(ask get_library)" "-Wl,-rpath,$(dirname "$(ask get_library)")"
}

by_pkg_config() { PKG_CONFIG_PATH=$(ask get_pkgconfig) pkg-config "$@" pageattn; }

pkg_config_program() {
    # shellcheck disable=SC2046 # the flags are words
    cc -std=c99 -Wall -Wextra -pedantic -Werror tests/consumer/consumer.c -o "$work/by_pkg_config" \
        $(by_pkg_config --cflags --libs) "-Wl,-rpath,$(by_pkg_config --variable=libdir)"
}

pkg_config_version() {
    test "$(by_pkg_config --modversion)" = "$(python -c 'import pageattn; print(pageattn.__version__)')"
}

# An extension without a run path, as it would be in a wheel of its own.
c_extension() {
    # shellcheck disable=SC2046
    cc -shared -fPIC -xc - -o "$work/extension.so" $(by_pkg_config --cflags --libs) <<'C' &&
#include <pageattn/pageattn.h>
int version(void);
int version(void) { return pageattn_version_number(); }
C
        python - <<'PYTHON'
import ctypes
import pageattn
extension = ctypes.CDLL("./extension.so")
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "libpageattn.so" in line}
assert extension.version() > 0 and mapped == {pageattn.get_library()}, mapped
PYTHON
}

fresh_environment() {
    python3 -m venv "$work/venv" && "$work/venv/bin/python" -m pip install --quiet "${wheels[0]}"
}

exec 3>&1
works "sdist" make_sdist
works "sdist: the wheel is built without the network" make_wheel
works "one py3-none-manylinux wheel" one_manylinux_wheel
works "auditwheel" clean
works "pip install into a fresh environment" fresh_environment
works "import" python -c 'import pageattn; assert "site-packages" in pageattn.__file__'
works "the README's Python" readme_examples
works "a C program by get_include and get_library: build" c_program
works "a C program by get_include and get_library" "$work/by_path"
works "a C program by get_pkgconfig: build" pkg_config_program
works "a C program by get_pkgconfig" "$work/by_pkg_config"
works "pkg-config: the version of the package" pkg_config_version
works "a C extension shares the library of the package" c_extension

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
