"""Write numbers of things in words, and group statements about several agents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])(?: \[[^\]]*\])?")
"""A number that is not part of a word, with its interval if it has one."""


def number_of(number: float, thing: str) -> str:
    """Return a number with its noun: `1 round`, `2 rounds`."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {thing}" + "s" * (number != 1)


def grouped(said: Iterable[tuple[str, str]], everyone: int = 0) -> list[str]:
    """Return statements about agents, given as (name, text), in one line for each cause.

    Texts that differ only in numbers have one cause: the line names the agents of each number that differs. The lines
    are in the order of their first statements. everyone: number of agents; from three on, a statement about every agent
    says `all agents`.
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


def typed_minus(text: str) -> str:
    """Return text with the minus of a keyboard in place of the sign that tables and labels have."""
    return text.replace("\N{MINUS SIGN}", "-")
