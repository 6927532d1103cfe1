"""Text that comes from outside, fit to be shown: on one line, cut, nothing in it that a terminal obeys."""

from __future__ import annotations

import re
from typing import Any

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What a terminal may obey, or turns round, or cannot be written; tabs and ends of lines apart."""
WHOLE = 2**63
"""Whole numbers are below this, and not below its negative: 64 bits."""


def escaped(text: str) -> str:
    """The text with what a terminal would obey written as in Python, such as \\x1b."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str, most: int) -> str:
    """The text on one line of at most so many characters; of a longer one the middle is left out."""
    text = escaped(" ".join(text.split()))
    if len(text) <= most:
        return text
    tail = 2 * most // 5
    return f"{text[: most - tail - 3]}...{text[-tail:]}"


def shown(value: Any, most: int = 80) -> str:
    """A value as Python writes it, cut."""
    if isinstance(value, int) and not -WHOLE <= value < WHOLE:
        return f"a whole number of {value.bit_length()} bits"
    return one_line(repr(value), most)
