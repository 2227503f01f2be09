# SPDX-License-Identifier: Apache-2.0
"""Shows answers as they grow.

Several answers grow at once. On a terminal each has one line at the bottom that shows the end of
what is written so far; when it is complete it moves up, whole, and stays. Where output goes into a
pipe or a file, an answer is printed when it is complete, and nothing is ever overwritten.
"""

import os
import shutil
import textwrap
import unicodedata

INDENT = "    "


def printable(text: str) -> str:
    """The text without control characters other than line ends: a model may write anything."""
    return "".join(
        c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


def width_of(text: str) -> int:
    """Columns on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def tail(text: str, columns: int) -> str:
    """The end of the text in one line of at most `columns`, "..." for what is left out."""
    line = " ".join(text.split())
    if width_of(line) <= columns:
        return line
    while line and width_of(line) > columns - 3:
        line = line[1:]
    return "..." + line


class Style:
    """Colours, or none: without a terminal, or with NO_COLOR set."""

    def __init__(self, enabled: bool):
        self._enabled = enabled

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        return self._paint("2", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def _paint(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self._enabled else text


class PlainDisplay:
    """For a pipe or a file."""

    def __init__(self, stream, style: Style):
        self.stream, self.style = stream, style

    def update(self, growing: list[tuple[int, str]], status: str) -> None:
        pass

    def complete(self, number: int, question: str, answer: str, ending: str) -> None:
        """Prints a whole answer; `ending` says why it stopped, unless it came to its own end."""
        print(f"{number:3d} {self.style.bold(printable(question))}", file=self.stream)
        for line in self._lines(printable(answer)):
            print(f"{INDENT}{line}" if line else "", file=self.stream)
        if ending:
            print(INDENT + self.style.dim(f"({ending})"), file=self.stream)
        print(file=self.stream, flush=True)

    def close(self) -> None:
        pass

    def _lines(self, answer):
        return answer.split("\n")


class LiveDisplay(PlainDisplay):
    """For a terminal."""

    def __init__(self, stream, style: Style):
        super().__init__(stream, style)
        self._lines_shown = 0

    def update(self, growing: list[tuple[int, str]], status: str) -> None:
        """Redraws the growing answers, (number, text so far), and the line under them."""
        columns, rows = shutil.get_terminal_size()
        lines = [
            f"{number:3d} {tail(printable(text), columns - 5)}"
            for number, text in growing[: max(rows - 2, 0)]
        ]
        lines.append(self.style.dim(tail(status, columns - 1)))
        self._clear()
        self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()
        self._lines_shown = len(lines)

    def complete(self, number: int, question: str, answer: str, ending: str) -> None:
        self._clear()
        super().complete(number, question, answer, ending)

    def close(self) -> None:
        self._clear()
        self.stream.flush()

    def _clear(self):
        if self._lines_shown:
            self.stream.write(f"\x1b[{self._lines_shown}F\x1b[J")
            self._lines_shown = 0

    def _lines(self, answer):
        columns = shutil.get_terminal_size().columns - len(INDENT) - 1
        for line in answer.split("\n"):
            yield from textwrap.wrap(line, max(columns, 20)) or [""]


def make_display(stream) -> PlainDisplay:
    """The display that suits the stream and the environment (TERM, NO_COLOR)."""
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    style = Style(is_terminal and not os.environ.get("NO_COLOR"))
    return LiveDisplay(stream, style) if is_terminal else PlainDisplay(stream, style)
