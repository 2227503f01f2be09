# SPDX-License-Identifier: Apache-2.0
"""The public header as a page of directives of Sphinx's C domain.

The comments of the header are plain ones, written to be read there, before what they describe or
behind it on its line; the tools that document C want comments of their own form. So libclang says
what is declared where, and the comments are taken as Markdown. A section of the header becomes one
of the page.
"""

import re
import subprocess
import textwrap
from pathlib import Path
from typing import NamedTuple

from clang.cindex import Cursor, CursorKind, Index, TokenKind, TranslationUnit

ROLES = {
    CursorKind.FUNCTION_DECL: "function",
    CursorKind.STRUCT_DECL: "struct",
    CursorKind.FIELD_DECL: "member",
    CursorKind.ENUM_DECL: "enum",
    CursorKind.ENUM_CONSTANT_DECL: "enumerator",
    CursorKind.TYPEDEF_DECL: "type",
    CursorKind.MACRO_DEFINITION: "macro",
}
LINKED = {"function": "func", "struct": "struct", "enum": "enum", "enumerator": "enumerator",
          "type": "type", "macro": "macro"}
NOT_FOR_USERS = ("PAGEATTN_API",)


class Comment(NamedTuple):
    first_line: int
    last_line: int
    leads: bool  # nothing is before it on its line
    text: str


def markdown(header: Path) -> str:
    source = header.read_text()
    unit = parse(header)
    comments = find_comments(unit, source.splitlines())
    declarations = find_declarations(unit)
    roles = {cursor.spelling: LINKED[ROLES[cursor.kind]]
             for declared in declarations for cursor in (declared, *members(declared))
             if cursor.kind != CursorKind.FIELD_DECL}
    opening = next(comment for comment in comments if "\n" in comment.text)
    places = [(comment.first_line, f"## {title}\n") for comment in comments
              if (title := banner(comment))]
    for cursor in declarations:
        text = directive(cursor, source, comments, roles, "::::")
        places.append((cursor.extent.start.line, text))
    return "\n".join([link(opening.text, roles), *(text for _, text in sorted(places))])


def parse(header: Path) -> TranslationUnit:
    system = subprocess.run(["cc", "-print-file-name=include"], check=True, capture_output=True,
                            text=True).stdout.strip()
    options = TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD
    unit = Index.create().parse(header, ["-xc", "-std=c11", "-isystem", system], options=options)
    if errors := [str(diagnostic) for diagnostic in unit.diagnostics]:
        raise ValueError("\n".join(errors))
    return unit


def find_comments(unit: TranslationUnit, lines: list[str]) -> list[Comment]:
    comments = []
    for token in unit.get_tokens(extent=unit.cursor.extent):
        if token.kind == TokenKind.COMMENT:
            start, end = token.extent.start, token.extent.end
            leads = not lines[start.line - 1][: start.column - 1].strip()
            comments.append(Comment(start.line, end.line, leads, plain(token.spelling)))
    return comments


def plain(comment: str) -> str:
    """The text of a comment without its frame."""
    lines = comment.removeprefix("/*").removesuffix("*/").splitlines()
    framed = all(line.lstrip().startswith("*") or not line.strip() for line in lines[1:])
    if framed:
        lines[1:] = [re.sub(r"^\s*\* ?", "", line) for line in lines[1:]]
    else:
        lines[1:] = textwrap.dedent("\n".join(lines[1:])).splitlines()
    lines[0] = lines[0].strip()
    return "\n".join(lines).strip("\n").rstrip()


def banner(comment: Comment) -> str | None:
    """The title, if the comment begins a section of the header."""
    found = re.fullmatch(r"-{9,}\n(.+)\n-{9,}", comment.text)
    return found[1] if found else None


def find_declarations(unit: TranslationUnit) -> list[Cursor]:
    found = []
    for cursor in unit.cursor.get_children():
        file = cursor.location.file
        if file is None or file.name != unit.spelling or cursor.kind not in ROLES:
            continue
        if cursor.kind == CursorKind.MACRO_DEFINITION:
            wanted = cursor.spelling not in NOT_FOR_USERS and value(cursor) != ""
        elif cursor.kind == CursorKind.TYPEDEF_DECL:  # where it only names a struct, that is enough
            wanted = not any(child.is_definition() and child.spelling == cursor.spelling
                             for child in cursor.get_children())
        else:
            wanted = cursor.kind == CursorKind.FUNCTION_DECL or cursor.is_definition()
        if wanted:
            found.append(cursor)
    return found


def members(cursor: Cursor) -> list[Cursor]:
    if cursor.kind not in (CursorKind.STRUCT_DECL, CursorKind.ENUM_DECL):
        return []
    return [child for child in cursor.get_children() if child.kind in ROLES]


def directive(cursor: Cursor, source: str, comments: list[Comment], roles: dict[str, str],
              fence: str) -> str:
    parts = [f"{fence}{{c:{ROLES[cursor.kind]}}} {signature(cursor, source)}",
             link(description(cursor, comments), roles)]
    parts += [directive(member, source, comments, roles, ":::") for member in members(cursor)]
    return "\n".join([*parts, fence, ""])


def signature(cursor: Cursor, source: str) -> str:
    if cursor.kind in (CursorKind.STRUCT_DECL, CursorKind.ENUM_DECL, CursorKind.MACRO_DEFINITION):
        return cursor.spelling
    extent = cursor.extent
    text = source.encode()[extent.start.offset : extent.end.offset].decode()
    words = text.split("{")[0].split()
    left_out = ("typedef", "static", "inline", "PAGEATTN_API")
    return " ".join(word for word in words if word not in left_out)


def description(cursor: Cursor, comments: list[Comment]) -> str:
    first, last = cursor.extent.start.line, cursor.extent.end.line
    if cursor.kind == CursorKind.MACRO_DEFINITION:
        last = first
    found = [comment.text for comment in comments
             if (comment.leads and comment.last_line == first - 1)
             or (not comment.leads and comment.first_line == last)]
    if cursor.kind == CursorKind.MACRO_DEFINITION:
        found.insert(0, f"`{value(cursor)}`")
    return "\n\n".join(found)


def value(macro: Cursor) -> str:
    return "".join(token.spelling for token in macro.get_tokens()).removeprefix(macro.spelling)


def link(text: str, roles: dict[str, str]) -> str:
    """Names and pages that a comment mentions become links, outside of its indented code."""
    def refer(found: re.Match[str]) -> str:
        name = found[1]
        return f"{{c:{roles[name]}}}`{name}`" if name in roles else found[0]

    paragraphs = text.split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        if not paragraph.startswith("    "):
            paragraph = re.sub(r"(?<![\w`])(\w+)(?![\w`])", refer, paragraph)
            paragraphs[number] = re.sub(r"\bdocs/(\w+\.md)", r"[\1](../\1)", paragraph)
    return "\n\n".join(paragraphs)
