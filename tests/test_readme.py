# SPDX-License-Identifier: Apache-2.0
"""The README's examples, extracted, compiled and run: tests/test_readme.py BUILD_DIR

Each block of C or Python is a whole program. Where a block of text follows, it must be exactly what
the program prints. The two commands that the README begins with must be the Makefile's.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def c_program(source, build, folder):
    (folder / "example.c").write_text(source)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off"]
    library = [f"-I{ROOT}/include", f"-L{build}", "-lpageattn", f"-Wl,-rpath,{build}"]
    program = folder / "example"
    subprocess.run(["cc", *strict, folder / "example.c", "-o", program, *library], check=True)
    return [program]


def python_program(source, build, folder):
    (folder / "example.py").write_text(source)
    return [sys.executable, folder / "example.py"]


OPTIONAL = ("jax", "torch")
PROGRAMS = {"c": c_program, "python": python_program}


def run(language, source, build):
    """What the program prints; a CalledProcessError if it can't be built or fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = PROGRAMS[language](source, build, Path(folder))
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        return done.stdout


def why_example_fails(language, source, printed, build):
    """None if the example prints what the README says."""
    try:
        output = run(language, source, build)
    except subprocess.CalledProcessError as error:
        return f"{error}\n{error.stderr or ''}"
    if output != printed:
        return f"it prints\n{output}and the README says\n{printed}"
    return None


def why_commands_fail(readme):
    commands = [line for language, text in FENCE.findall(readme) if language == "sh"
                for line in text.splitlines() if line.startswith("make ")]
    if commands[:2] != ["make run", "make test"]:
        return f"the README's first commands are {commands[:2]}"
    for command in commands:
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            return f"{command}: {done.stderr}"
    return None


def examples(readme):
    """(language, source, what it prints) for each block of a language in PROGRAMS."""
    blocks = FENCE.findall(readme)
    for (language, source), (next_language, text) in zip(blocks, [*blocks[1:], ("", "")]):
        if language in PROGRAMS:
            yield language, source, text if next_language == "text" else ""


def missing_package(source):
    """The first package of OPTIONAL that a Python example imports and this Python lacks."""
    for package in OPTIONAL:
        if re.search(rf"^import {package}$", source, re.MULTILINE):
            if importlib.util.find_spec(package) is None:
                return package
    return None


def main():
    build = Path(sys.argv[1]).resolve()
    readme = (ROOT / "README.md").read_text()
    results = {"the commands": why_commands_fail(readme)}
    for language in PROGRAMS:
        results[f"{language} example 1"] = "there is none"
    numbers = dict.fromkeys(PROGRAMS, 0)
    for language, source, printed in examples(readme):
        numbers[language] += 1
        name = f"{language} example {numbers[language]}"
        package = missing_package(source)
        if package is None:
            results[name] = why_example_fails(language, source, printed, build)
        else:
            print(f"SKIPPED {name}: {package} is not installed")

    failures = {name: why for name, why in results.items() if why is not None}
    for name, why in failures.items():
        print(f"FAILED {name}: {why}")
    print(f"{len(results) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
