# SPDX-License-Identifier: Apache-2.0
"""What autodoc needs to show the Python package as its docstrings are written.

They are plain text with the sections of NumPy's style, where what follows the colon behind an
argument's name is prose, not only a type.
"""

import ast
import re
import types
from pathlib import Path
from typing import Any


def module_to_read(path: Path, name: str) -> types.ModuleType:
    """A module whose public functions have their arguments and docstrings, and do nothing.

    So the site is built without the packages that the module itself imports.
    """
    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)
                 and not node.name.startswith("_") and not node.decorator_list]
    for function in functions:
        function.body = function.body[:1]  # the docstring
        function.returns = None
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
    module = types.ModuleType(name, ast.get_docstring(tree))
    exec(compile(ast.Module(functions, type_ignores=[]), str(path), "exec"), module.__dict__)
    for function in functions:
        getattr(module, function.name).__module__ = name
    return module


def restructure(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turns the lines of a docstring into reStructuredText, in place."""
    text = "\n\n".join(paragraph(text) for text in "\n".join(lines).split("\n\n"))
    text = re.sub(r"^(\w+)\n-+$", r".. rubric:: \1\n", text, flags=re.MULTILINE)
    text = re.sub(r"^([\w, ]+) : (.*)$", r"``\1``\n    \2", text, flags=re.MULTILINE)
    lines[:] = text.splitlines()


def paragraph(text: str) -> str:
    if text.startswith("    "):
        return f"::\n\n{text}"
    text = text.replace("*", r"\*")
    text = re.sub(r"^(\w+ : .*)\n(?=    [A-Z])", r"\1\n\n", text, flags=re.MULTILINE)
    return re.sub(r'^    (".*)$', r"\n    - \1", text, flags=re.MULTILINE)
