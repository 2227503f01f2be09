# SPDX-License-Identifier: Apache-2.0
"""The site: `make docs` builds it into build/docs."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import c_reference
import python_reference

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "include/pageattn/pageattn.h"

project = "pageattn"
author = copyright = "The pageattn maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "none"
smartquotes = False  # quotes in docstrings are code
html_theme = "furo"
html_title = "pageattn"
html_copy_source = False
html_static_path = ["style"]
html_css_files = ["site.css"]
autodoc_typehints = "none"  # the docstrings say more; and overloads are shown as one

for module in ("jax/_attention", "torch", "ejkernel"):
    name = f"pageattn.{module.partition('/')[0]}"
    path = ROOT / f"python/pageattn/{module}.py"
    sys.modules[name] = python_reference.module_to_read(path, name)


def insert_header(app: Any, docname: str, source: list[str]) -> None:
    if docname == "reference/c":
        app.env.note_dependency(str(HEADER))
        source[0] += c_reference.markdown(HEADER)


def setup(app: Any) -> None:
    app.connect("source-read", insert_header)
    app.connect("autodoc-process-docstring", python_reference.restructure)
