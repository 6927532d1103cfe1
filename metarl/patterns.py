"""Patterns of names, the same in all settings: a name itself, or a regular expression that matches names in full."""

from __future__ import annotations

import re
from collections.abc import Iterable


def matched(pattern: str, names: Iterable[str], what: str) -> list[str]:
    """Return the names that are the pattern, or that it matches in full as a regular expression.

    ValueError if it is neither a name nor a regular expression. what: what the names are called.
    """
    known = list(names)
    try:
        return [name for name in known if name == pattern or re.fullmatch(pattern, name)]
    except re.error as error:
        if pattern in known:
            return [pattern]
        there = ", ".join(known) or "none"
        raise ValueError(f"{what} {pattern!r} is no regular expression: {error}; there are {there}") from None
