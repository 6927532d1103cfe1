"""Safe display of text from outside: on one line, shortened, without characters that control a terminal."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from typing import Any

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Characters that control a terminal, reverse text or cannot be encoded, except tabs and ends of lines."""
WHOLE = 2**63
"""Bound of whole numbers, which must fit in 64 bits."""


def escaped(text: str) -> str:
    """Return the text with control characters written as in Python, such as \\x1b."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str, most: int) -> str:
    """Return the text on one line of limited length; the middle of a longer one is left out."""
    text = escaped(" ".join(text.split()))
    if len(text) <= most:
        return text
    tail = 2 * most // 5
    return f"{text[: most - tail - 3]}...{text[-tail:]}"


def typed(argument: Any) -> str:
    """Return an argument of a command, such as a path, as it is typed in a shell."""
    return shlex.quote(str(argument))


def shown(value: Any, most: int = 80) -> str:
    """Return a value as Python writes it, shortened."""
    if isinstance(value, int) and not -WHOLE <= value < WHOLE:
        return f"a whole number of {value.bit_length()} bits"
    return one_line(repr(value), most)


def near(name: str, valid: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Return the end of a message about a name that is not valid: the nearest names, or those to list (None: all)."""
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(name[:80], names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    names = names if listed is None else list(listed)
    return f"; there are {', '.join(names)}" if names else "; there are none"
