# SPDX-License-Identifier: Apache-2.0
"""Checks drawings of `pageattn bench --plot`: tests/check_svg.py FILE...

Each is well-formed, needs nothing from outside, has a background of its own, and its texts lie
within it and do not cover each other. Prints what is wrong; the exit status says whether anything is.
"""

import re
import sys
import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
CHARACTER = 0.56  # of the font's size: an average of sans-serif fonts, a little below the widest
LINE = 0.75  # height of capital letters and digits, likewise

Box = tuple[float, float, float, float]


def texts(root: ET.Element) -> list[tuple[str, Box]]:
    """Every text with the box that it fills: left, top, right, bottom."""
    found = []
    for group in root.iter(SVG + "g"):
        text = group.find(SVG + "text")
        place = re.match(r"translate\(([-\d.]+),([-\d.]+)\)(.*)", group.get("transform", ""))
        content = "".join(text.itertext()).strip() if text is not None else ""
        if place is None or not content:
            continue
        x, y, size = float(place[1]), float(place[2]), float(group.get("font-size", "12"))
        width, height = CHARACTER * size * len(content), LINE * size
        start = {"start": 0.0, "middle": 0.5, "end": 1.0}[group.get("text-anchor", "start")]
        if "rotate(-90" in place[3] or "rotate(270" in place[3]:
            box = (x - height, y - (1 - start) * width, x, y + start * width)
        else:
            box = (x - start * width, y - height, x + (1 - start) * width, y)
        found.append((content, box))
    return found


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def outside(root: ET.Element) -> list[str]:
    """What the drawing would fetch or run."""
    found = []
    for element in root.iter():
        if element.tag.removeprefix(SVG) in ("script", "image", "style", "foreignObject"):
            found.append(f"has an element {element.tag.removeprefix(SVG)}")
        for name, value in element.attrib.items():
            reference = name.endswith("href") and not value.startswith("#")
            if reference or re.search(r"url\((?!#)|https?:|file:|data:", value):
                found.append(f"refers to {value}")
    return found


def faults(path: str) -> list[str]:
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        return [str(error)]
    if root.tag != SVG + "svg":
        return [f"the root is {root.tag}"]
    found = outside(root)
    _, _, width, height = (float(number) for number in root.get("viewBox", "0 0 0 0").split())
    background = root.find(f".//{SVG}rect[@fill='#ffffff'][@width='{width:.0f}']")
    if background is None or float(background.get("height", "0")) != height:
        found.append("has no background of its own")
    labels = texts(root)
    if len(labels) < 8:
        found.append(f"has {len(labels)} texts only")
    for i, (text, box) in enumerate(labels):
        if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
            found.append(f"{text!r} is not inside")
        found += [f"{text!r} covers {b!r}" for b, other in labels[:i] if overlap(box, other)]
    return found


def main() -> int:
    status = 0
    for path in sys.argv[1:]:
        for fault in faults(path):
            print(f"{path}: {fault}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
