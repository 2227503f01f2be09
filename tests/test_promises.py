# SPDX-License-Identifier: Apache-2.0
"""Every promise of docs/reliability.md names tests that exist and run.

The table there has two columns, what is promised and what proves it. Each proof is in backquotes:

    `tests/test_busy.c: test_busy`              a function of a C test, or a line `run "name"` and
    `tests/test_symbols.sh: SONAME`             the like of a script, named by the start of its text
    `python/tests/test_errors.py::test_x`       a function of a Python test
    `tests/run: tsan`                           a part of tests/run

A test that is renamed, or that nothing runs any more, fails here.
"""

import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reliability.md"
HEADING = ("promise", "proven by")
# What runs the tests, apart from pytest, which takes whole folders.
RUNNERS = ("tests/run", "tests/CMakeLists.txt", "cli/CMakeLists.txt", "fuzz/CMakeLists.txt")
PYTEST_FOLDERS = ("python/tests/", "examples/smollm2/")


def table(text):
    """Yields (line number, cells) of the rows under the heading."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if not line.startswith("|"):
            inside = False
        elif cells == HEADING:
            inside = True
        elif inside and not set(line) <= set("|- "):
            yield number, cells


def parts():
    listing = subprocess.run([ROOT / "tests/run", "--list"], capture_output=True, text=True)
    return listing.stdout.split()


def is_run(path):
    if path.startswith(PYTEST_FOLDERS):
        return pathlib.PurePath(path).name.startswith("test_")
    name = pathlib.PurePath(path).name.removesuffix(".c")
    runners = [ROOT / runner for runner in RUNNERS if (ROOT / runner).exists()]
    return any(re.search(rf"\b{re.escape(name)}\b", runner.read_text()) for runner in runners)


def has(path, name):
    """Is there a test of this name in the file?"""
    text = (ROOT / path).read_text()
    if path.endswith(".py"):
        return any(isinstance(node, ast.FunctionDef) and node.name == name
                   for node in ast.walk(ast.parse(text)))  # fmt: skip
    if path.endswith(".c"):
        defined = re.search(rf"^[a-z][a-z0-9_ *]*\b{re.escape(name)}\(", text, re.MULTILINE)
        return defined is not None and len(re.findall(rf"\b{re.escape(name)}\b", text)) > 1
    return f'"{name}' in text


def what_is_wrong(proof):
    """A sentence, or None if the proof stands."""
    path, separator, name = re.fullmatch(r"([^:]*)(::?)? *(.*)", proof).groups(default="")
    if path == "tests/run":
        return None if name in parts() else f"tests/run has no part {name}"
    if not (ROOT / path).is_file():
        return f"there is no file {path}"
    if not name:
        return f"{proof} names no test; write {path}: name"
    if (separator == "::") != path.endswith(".py"):
        return f"{proof}: names of Python tests stand after ::, others after :"
    if not has(path, name):
        return f"{path} has no {name}"
    return None if is_run(path) else f"nothing runs {path}"


def main():
    passed, failed = 0, 0
    for number, cells in table(PAGE.read_text()):
        proofs = re.findall(r"`([^`]+)`", cells[-1])
        problems = [problem for proof in proofs if (problem := what_is_wrong(proof))]
        if len(cells) != 2 or not cells[0] or not proofs:
            problems.append("a row has a promise and at least one test")
        for problem in problems:
            print(f"FAILED docs/reliability.md:{number}: {problem}")
        failed += bool(problems)
        passed += not problems
    if passed + failed == 0:
        print(f"FAILED docs/reliability.md has no table {' | '.join(HEADING)}")
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
