"""Numbers in a model's file that MuJoCo reads on with, or never comes to an end with: refused, with their place."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from metarl.envs.text import shown

UNBOUNDED = ("forcerange", "actuatorfrcrange", "effort", "velocity")
"""Attributes of which infinity says that there is no limit."""
COPIES = ("replicate", "composite", "flexcomp")
"""Elements that stand for as many parts as their `count` says."""
MOST_PARTS = 100_000
"""That an element may stand for, those around it included."""
MOST_SIZE = 10_000_000
"""Of what `<size>` asks for."""
MEMORY = ("memory", "njmax", "nconmax", "nstack")
"""Attributes of `<size>` that MuJoCo itself judges, or ignores."""


def require_numbers(root: ElementTree.Element, where: str = "", parts: float = 1) -> None:
    """ValueError if an attribute of an element, or of one within it, is no number where others are, or asks for more
    than any robot has.

    where: what the message begins with. parts: that the elements around it stand for.
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
    """Whether a word of an attribute is what MuJoCo reads as no number, or as an infinite one that limits nothing."""
    bare = word.strip("+-").lower()
    return bare == "nan" or (bare == "inf" and key not in UNBOUNDED)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:  # MuJoCo says what is wrong with it
        return 1.0
