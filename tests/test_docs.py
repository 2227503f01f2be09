# SPDX-License-Identifier: Apache-2.0
"""The site: tests/test_docs.py BUILD_DIR SITE

Every code block of docs/ is executed, page by page. Blocks of Python are one program, in their
order, and blocks of shell run in an empty folder with an installed library; where a block of text
follows, it is exactly what the block prints. Blocks of C, Rust and CMake are saved under the names
below, for the shell to use. Links inside of the built site lead somewhere, and the reference has
every public name.

What the site takes from the README is executed by test_readme.py.
"""

import html.parser
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pageattn

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {"c": "example.c", "rust": "example.rs", "cmake": "CMakeLists.txt"}
NO_CODE = ("", "text")  # beside directives, which are in braces

# Blocks of shell that are not executed, by their first command; each `make` in them is tried dry.
NOT_EXECUTED = {"make build": "measures for minutes", "make fuzz": "runs for an hour"}
# Names in the header that are no part of the interface, or are environment variables.
NOT_IN_REFERENCE = {"PAGEATTN_PAGEATTN_H", "PAGEATTN_STATIC", "PAGEATTN_API", "PAGEATTN_ISA",
                    "PAGEATTN_NUM_THREADS"}
# Which rows of the performance page the comparison repeats, and where they stand.
PERFORMANCE_HEADING = "## What it reaches on Zen 4\n"
PERFORMANCE_CASES = {
    "exact": ("bf16, head_dim 128, group 1", "group 4", "group 8"),
    "fast": ("fast, group 1", "fast, group 4", "fast, group 8"),
}
# Packages that may be missing here. Without them the page's Python is skipped.
OPTIONAL = ("torch",)

# Around the example in the header's opening comment.
HEADER_PROGRAM = """
#include <pageattn/pageattn.h>
#include <stdio.h>
int main(void)
{
    enum { num_seqs = 1, num_heads = 1, head_dim = 2, num_kv_heads = 1, num_pages = 2 };
    enum { page_size = 2, max_blocks = 1 };
    static uint16_t keys[8], values[8] = {0x3f80, 0x4000};
    float query[2] = {0}, out[2];
    int32_t lens[1] = {1}, tables[1] = {0};
%s
    printf("%%g %%g\\n", out[0], out[1]);
    return 0;
}
"""


class Block(NamedTuple):
    language: str
    source: str
    printed: str | None  # the block of text behind it


def blocks_of(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text())
    blocks = []
    for (language, source), (next_language, text) in zip(found, [*found[1:], ("", "")]):
        if language not in NO_CODE and not language.startswith("{"):
            blocks.append(Block(language, source, text if next_language == "text" else None))
    return blocks


def why_python_fails(page: str, blocks: list[Block], environment: dict[str, str]) -> str | None:
    """None if the blocks, run one after the other, print what the page says."""
    program = ["namespace = {'__name__': '__main__'}"]
    for number, block in enumerate(blocks, 1):
        name = f"{page}, Python block {number}"
        program += [f"exec(compile({block.source!r}, {name!r}, 'exec'), namespace)",
                    "print(end='\\0', flush=True)"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "\n".join(program)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder,
                              env=environment | {"HOME": folder}, check=False)
    if done.returncode != 0:
        return done.stderr
    for number, (block, output) in enumerate(zip(blocks, done.stdout.split("\0")), 1):
        if output != (block.printed or ""):
            return f"Python block {number} prints\n{output}and the page says\n{block.printed}"
    return None


def why_shell_fails(blocks: list[Block], environment: dict[str, str]) -> str | None:
    unused = set()
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks:
            if block.language in FILES:
                Path(folder, FILES[block.language]).write_text(block.source)
                unused.add(block.language)
                continue
            done = subprocess.run(["sh", "-ec", block.source], capture_output=True, text=True,
                                  cwd=folder, env=environment, check=False)
            if done.returncode != 0:
                return f"{block.source}{done.stdout}{done.stderr}"
            if block.printed is not None and done.stdout != block.printed:
                return f"{block.source}prints\n{done.stdout}and the page says\n{block.printed}"
            unused.clear()
    return f"no block of shell follows that of {', '.join(unused)}" if unused else None


def why_dry_run_fails(block: Block) -> str | None:
    for line in block.source.splitlines():
        if line.startswith("make "):
            done = subprocess.run(["sh", "-c", f"make --dry-run {line.removeprefix('make ')}"],
                                  cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"{line}: {done.stderr}"
    return None


def missing_package(blocks: list[Block]) -> str | None:
    for package in OPTIONAL:
        if any(re.search(rf"^import {package}$", block.source, re.MULTILINE) for block in blocks):
            if importlib.util.find_spec(package) is None:
                return package
    return None


def try_page(page: Path, environment: dict[str, str]) -> dict[str, str | None]:
    name = str(page.relative_to(DOCS))
    blocks = blocks_of(page)
    results: dict[str, str | None] = {}
    python = [block for block in blocks if block.language == "python"]
    shell = []
    for block in blocks:
        command = block.source.partition("\n")[0].partition(" #")[0].rstrip()
        if block.language == "sh" and command in NOT_EXECUTED:
            print(f"NOT EXECUTED {name}: `{command}` and what follows {NOT_EXECUTED[command]}")
            results[f"{name}: {command}"] = why_dry_run_fails(block)
        elif block.language == "sh" or block.language in FILES:
            shell.append(block)
        elif block.language != "python":
            results[f"{name}: {command}"] = f"nothing executes blocks of {block.language!r}"
    package = missing_package(python)
    if package is not None:
        print(f"SKIPPED {name}: {package} is not installed")
    elif python:
        results[f"{name}: Python"] = why_python_fails(name, python, environment)
    if shell:
        results[f"{name}: shell"] = why_shell_fails(shell, environment)
    return results


def why_header_fails(environment: dict[str, str]) -> str | None:
    header = (ROOT / "include/pageattn/pageattn.h").read_text()
    opening = header.partition("The shortest use:")[2].partition("What it promises")[0]
    lines = [line[6:] for line in opening.splitlines() if line.startswith(" *     ")]
    source = HEADER_PROGRAM % "\n".join(lines)
    compile_it = "cc -Wall -Werror example.c -o example $(pkg-config --cflags --libs pageattn)"
    blocks = [Block("c", source, None), Block("sh", f"{compile_it}\n./example", "1 2\n")]
    return why_shell_fails(blocks, environment)


class Links(html.parser.HTMLParser):
    """Where a page's links lead, and the places in it that links may name."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.targets.append(value)
            elif value and name == "id":
                self.places.add(value)


def why_link_is_broken(page: Path, target: str, pages: dict[Path, Links]) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not path.is_file():
        return f"{target}: there is no such file"
    if parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].places:
        return f"{target}: there is no such place"
    return None


def try_links(site: Path) -> dict[str, str | None]:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    results: dict[str, str | None] = {}
    num_links = 0
    for page, links in pages.items():
        whys = [why_link_is_broken(page, target, pages) for target in links.targets]
        results[f"links of {page.relative_to(site)}"] = "\n".join(filter(None, whys)) or None
        num_links += len(links.targets)
    if num_links == 0:
        results["links"] = f"there is none in {site}"
    return results


def try_reference(site: Path) -> dict[str, str | None]:
    """Every public name has its place in the reference."""
    header = (ROOT / "include/pageattn/pageattn.h").read_text()
    names = {
        "c": set(re.findall(r"\bpageattn_\w+|\bPAGEATTN_\w+", header)) - NOT_IN_REFERENCE,
        "python": set(pageattn.__all__) - {"__version__"},
    }
    results: dict[str, str | None] = {}
    for page, wanted in names.items():
        places = Links(site / f"reference/{page}.html").places
        missing = wanted - {place.rpartition(".")[2] for place in places if "." in place}
        results[f"reference/{page}"] = f"not there: {sorted(missing)}" if missing else None
    return results


def why_comparison_is_stale() -> str | None:
    """The rows of pageattn in the comparison are those of the performance page, on the same CPU."""
    rows = {}
    page = (DOCS / "performance.md").read_text()
    for line in page.partition(PERFORMANCE_HEADING)[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 7:
            rows[cells[0]] = f"{cells[1]} / {cells[4]}"
    comparison = (DOCS / "comparison.md").read_text()
    for numerics, cases in PERFORMANCE_CASES.items():
        row = f", {numerics} | " + " | ".join(rows[case] for case in cases) + " |"
        if row not in comparison:
            return f"there is no row that ends with {row!r}"
    return None


def installed(build: Path, prefix: str) -> dict[str, str]:
    """The environment in which a library installed under the prefix is found."""
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True,
                   capture_output=True)
    library = next(Path(prefix).rglob("libpageattn.so")).parent
    description = library / "pkgconfig/pageattn.pc"  # written for the prefix of the build
    text = re.sub("^prefix=.*", f"prefix={prefix}", description.read_text(), flags=re.MULTILINE)
    description.write_text(text)
    return os.environ | {
        "PKG_CONFIG_PATH": f"{library}/pkgconfig",
        "LD_LIBRARY_PATH": str(library),
        "CMAKE_PREFIX_PATH": prefix,
        "JAX_PLATFORMS": "cpu",
    }


def main() -> int:
    build, site = (Path(argument).resolve() for argument in sys.argv[1:])
    results = try_links(site) | try_reference(site)
    with tempfile.TemporaryDirectory() as prefix:
        environment = installed(build, prefix)
        results["comparison.md: pageattn's figures"] = why_comparison_is_stale()
        results["pageattn.h: the shortest use"] = why_header_fails(environment)
        for page in sorted(DOCS.rglob("*.md")):
            results |= try_page(page, environment)
    failures = {name: why for name, why in results.items() if why is not None}
    for name, why in failures.items():
        print(f"FAILED {name}: {why}")
    print(f"{len(results) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
