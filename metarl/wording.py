"""Numbers of things in words, and what is said of several agents in as few lines as there are causes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])(?: \[[^\]]*\])?")
"""A number that is no part of a word, with its interval if it has one."""


def number_of(number: float, thing: str) -> str:
    """`1 round`, `2 rounds`."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {thing}" + "s" * (number != 1)


def grouped(said: Iterable[tuple[str, str]], everyone: int = 0) -> list[str]:
    """What is said of agents as (name, text), one line a cause, in the order of their first.

    Texts that differ in nothing but numbers are one cause: the line has each number that differs with the names that it
    is of. everyone: how many agents there are; what holds for three or more that are all is said of `all agents`.
    """
    causes: dict[str, list[tuple[str, str]]] = {}
    for name, text in said:
        causes.setdefault(NUMBER.sub("#", text), []).append((name, text))
    return [_line([name for name, _ in own], [text for _, text in own], everyone) for own in causes.values()]


def _line(names: Sequence[str], texts: Sequence[str], everyone: int) -> str:
    if len(set(texts)) == 1:
        return f"{'all agents' if len(names) == everyone > 2 else ', '.join(names)}: {texts[0]}"
    found = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    numbers = iter([_whose(names, values) for values in found])
    return NUMBER.sub(lambda match: next(numbers), texts[0])


def _whose(names: Sequence[str], values: Sequence[str]) -> str:
    if len(set(values)) == 1:
        return values[0]
    return ", ".join(f"{value} ({name})" for name, value in zip(names, values, strict=True))
