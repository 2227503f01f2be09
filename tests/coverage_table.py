# SPDX-License-Identifier: Apache-2.0
"""Judges what llvm-cov counted, for tests/test_coverage.sh: coverage_table.py LCOV MIN_BRANCHES.

Run from the repository's root. tests/coverage.txt names the lines that no test can reach, by what
stands in them, because line numbers move.
"""

import collections
import os
import pathlib
import re
import sys

# Everything of src/ but the kernels.
JUDGED = re.compile(r"src/(isa/(choose|detect)\.c|[^/]+\.[ch])$")

NEEDS_CPU = re.compile(r"needs (\w+) of the CPU")


class Counts:
    """Executions of a file's lines, and of its branches' two ways."""

    def __init__(self):
        self.lines = {}
        self.branches = {}

    def add(self, kind, fields):
        counts = self.lines if kind == "DA" else self.branches
        key = tuple(fields[:-1]) if kind == "BRDA" else int(fields[0])
        count = 0 if fields[-1] == "-" else int(fields[-1])
        counts[key] = max(count, counts.get(key, 0))


def read_lcov(path):
    """The counts of each judged file; a header is counted in every object that includes it."""
    files = collections.defaultdict(Counts)
    name = ""
    with open(path) as lcov:
        for record in lcov:
            kind, _, rest = record.strip().partition(":")
            if kind == "SF":
                name = os.path.relpath(rest)
            elif kind in ("DA", "BRDA") and JUDGED.match(name):
                files[name].add(kind, rest.split(","))
    return files


def cpu_flags():
    """What the kernel says of this CPU; nothing where it has other words for it."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return set(flags.split())
    return set()


def read_excuses(path):
    """The lines that cannot be reached here, as (file, code); each has a reason, or it is none.

    And those of them that a race reaches now and then. What the CPU's flag would reach is no
    excuse on a CPU that has it.
    """
    excuses, by_chance = set(), set()
    flags = cpu_flags()
    with open(path) as text:
        for line in text:
            if line.strip() and not line.startswith("#"):
                place, _, reason = line.strip().partition(" -- ")
                name, _, code = place.partition(": ")
                if not reason:
                    sys.exit(f"{path}: no reason for {place}")
                needs = NEEDS_CPU.fullmatch(reason)
                if needs and needs[1] in flags:
                    continue
                excuses.add((name, code))
                if reason == "needs a race":
                    by_chance.add((name, code))
    return excuses, by_chance


def unreached_lines(name, counts):
    """(line number, code) of what was never executed.

    Without lone brackets, and without directives: what a table such as isa.def expands to is
    counted at its #include, where the last row decides.
    """
    with open(name) as source:
        code = [line.strip() for line in source]
    return [
        (line, code[line - 1])
        for line, count in sorted(counts.lines.items())
        if count == 0 and code[line - 1] not in ("", "}", "{") and code[line - 1][0] != "#"
    ]


def print_row(name, num_lines, missed, num_branches, taken):
    share = 100 * taken / num_branches if num_branches else 100
    print(f"{name:26} {num_lines:6} {missed:7} {num_branches:9} {taken:6} {share:6.1f}")
    return share


def main(lcov, min_branches):
    files = read_lcov(lcov)
    excuses, by_chance = read_excuses("tests/coverage.txt")
    used = {(name, code) for name, code in by_chance if code in pathlib.Path(name).read_text()}
    failures = []
    total = [0, 0, 0, 0]
    print(f"{'file':26} {'lines':>6} {'missed':>7} {'branches':>9} {'taken':>6} {'%':>6}")
    for name, counts in sorted(files.items()):
        unreached = unreached_lines(name, counts)
        used |= {(name, code) for _, code in unreached} & excuses
        missed = [(line, code) for line, code in unreached if (name, code) not in excuses]
        failures += [f"never executed: {name}:{line}: {code}" for line, code in missed]
        taken = sum(count > 0 for count in counts.branches.values())
        row = [len(counts.lines), len(missed), len(counts.branches), taken]
        total = [a + b for a, b in zip(total, row)]
        print_row(name, *row)
    share = print_row("all", *total)
    failures += [
        f"tests/coverage.txt excuses what is executed, or gone: {name}: {code}"
        for name, code in sorted(excuses - used)
    ]
    if share < min_branches:
        failures.append(f"{share:.1f} % of the branches are taken, {min_branches:g} % are wanted")
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(excuses)} lines excused, in tests/coverage.txt")
    print(f"{len(files)} passed, {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
