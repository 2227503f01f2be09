# SPDX-License-Identifier: Apache-2.0
"""What analysers say of the library and the program: tests/lint.py BUILD_DIR

clang-tidy (.clang-tidy says what it looks for), cppcheck, and gcc's -fanalyzer, each on every file
that BUILD_DIR/compile_commands.json compiles from src and cli. A finding is a failure. Generated
headers must be there, so the build folder is one that was built.
"""

import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Symbols that gcc and clang define for a file's flags, and cppcheck does not.
MACROS_OF_FLAGS = {
    "-mavx2": "__AVX2__",
    "-mfma": "__FMA__",
    "-mf16c": "__F16C__",
    "-mavx512f": "__AVX512F__",
    "-mavx512bw": "__AVX512BW__",
    "-mavx512dq": "__AVX512DQ__",
    "-mavx512vl": "__AVX512VL__",
    "-mavx512bf16": "__AVX512BF16__",
}

# What gcc 12 does not follow: a tree of values that one realloc holds together; lane groups that loops
# fill. The memory sanitizer and valgrind do.
ANALYZER_EXCEPTIONS = {
    "cli/json.c": ["-Wno-analyzer-malloc-leak"],
    "src/isa/avx2.c": ["-Wno-analyzer-use-of-uninitialized-value"],
    "src/isa/avx2_l1.c": ["-Wno-analyzer-use-of-uninitialized-value"],
    "src/isa/avx512.c": ["-Wno-analyzer-use-of-uninitialized-value"],
    "src/isa/avx512_l1.c": ["-Wno-analyzer-use-of-uninitialized-value"],
    "src/isa/scalar.c": ["-Wno-analyzer-use-of-uninitialized-value"],
}


def files_of(build):
    """Yields (name in the repository, arguments of the compiler) of each file of src and cli."""
    commands = json.loads((build / "compile_commands.json").read_text())
    for command in sorted(commands, key=lambda command: command["file"]):
        name = pathlib.Path(command["file"]).relative_to(ROOT).as_posix()
        if name.startswith(("src/", "cli/")):
            arguments = shlex.split(command["command"])
            yield name, arguments[1 : arguments.index("-o")]


def clang_tidy(build, name, arguments):
    # A file each: with several, version 14 loses track of va_start.
    return ["clang-tidy", "--quiet", f"-p={build}", name]


def cppcheck(build, name, arguments):
    definitions = [a for a in arguments if a.startswith(("-D", "-I"))]
    macros = [f"-D{MACROS_OF_FLAGS[a]}" for a in arguments if a in MACROS_OF_FLAGS]
    return [
        "cppcheck", "--quiet", "--error-exitcode=1", "--std=c11", "--inline-suppr",
        "--enable=warning,performance", "-D__x86_64__", "-D__GNUC__=12",
        *definitions, *macros, name,
    ]  # fmt: skip


def gcc_analyzer(build, name, arguments):
    # A little optimisation suffices, and -O3 takes four times as long.
    kept = [a for a in arguments if not a.startswith(("-O", "-Werror"))]
    exceptions = ANALYZER_EXCEPTIONS.get(name, [])
    return ["gcc", *kept, "-O1", "-fanalyzer", "-Werror", *exceptions,
            "-c", name, "-o", "/dev/null"]  # fmt: skip


def findings(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit {done.returncode}"


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    tools = {"clang-tidy": clang_tidy, "cppcheck": cppcheck, "gcc -fanalyzer": gcc_analyzer}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = {
            f"{tool}: {name}": pool.submit(findings, command(build, name, arguments))
            for name, arguments in files_of(build)
            for tool, command in tools.items()
        }
    failed = 0
    for check, result in checks.items():
        if result.result():
            failed += 1
            print(f"FAILED {check}\n{result.result()}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
