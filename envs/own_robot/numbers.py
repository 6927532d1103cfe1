"""Refusal of numbers in a model's file that MuJoCo accepts but cannot simulate, or that take it forever."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from metarl.envs.text import shown

UNBOUNDED = ("forcerange", "actuatorfrcrange", "effort", "velocity")
"""Attributes that may be infinite, which means that there is no limit."""
COPIES = ("replicate", "composite", "flexcomp")
"""Elements that are repeated `count` times."""
MOST_PARTS = 100_000
"""Largest number of parts that nested elements may make."""
MOST_SIZE = 10_000_000
"""Largest value of an attribute of `<size>`."""
MEMORY = ("memory", "njmax", "nconmax", "nstack")
"""Attributes of `<size>` that MuJoCo checks itself, or ignores."""


def require_numbers(root: ElementTree.Element, where: str = "", parts: float = 1) -> None:
    """Raise ValueError for an attribute, of an element or of one within it, that is no finite number or far too large.

    where: start of the message. parts: number of times that the elements around it are repeated.
    """
    if isinstance(root.tag, str):  # no comment
        for key, value in root.attrib.items():
            if key != "name" and any(_is_none(word, key) for word in value.split()):
                otherwise = "make the joint continuous" if root.tag == "limit" else "leave it out"
                remedy = "write one" if "nan" in value.lower() else f"write one, or {otherwise}"
                raise ValueError(f"{where}{key} of a <{root.tag}> is {shown(value)}, which is no number; {remedy}")
            if root.tag == "size" and key not in MEMORY and _number(value) > MOST_SIZE:
                raise ValueError(f"{where}{key} of <size> is {shown(value)}; it must be at most {MOST_SIZE:,}")
        if root.tag in COPIES:
            parts *= math.prod(max(1.0, _number(word)) for word in root.get("count", "").split())
            if parts > MOST_PARTS:
                raise ValueError(
                    f"{where}count of a <{root.tag}> is {shown(root.get('count'))}, which makes more than "
                    f"{MOST_PARTS:,} parts with those around it; write fewer"
                )
    for child in root:
        require_numbers(child, where, parts)


def _is_none(word: str, key: str) -> bool:
    """Return whether a word is NaN, or an infinity that is not the lack of a limit."""
    bare = word.strip("+-").lower()
    return bare == "nan" or (bare == "inf" and key not in UNBOUNDED)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:  # MuJoCo says what is wrong with it
        return 1.0
