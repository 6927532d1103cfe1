"""Regular expressions that name the same joint of several limbs at once, as a robot's file writes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[\W_]+")
"""Words of a name, and what is between them: right_hip1, RightHip."""


def by_pattern(values: Mapping[str, T], names: Sequence[str], carriers: Mapping[str, Collection[str]]) -> dict[str, T]:
    """Return values of joints by regular expression: one for joints of different limbs that differ by a prefix or a
    suffix alone and have equal values, and a joint's own name otherwise.

    names: all joints that the file's expressions are matched with. carriers: the joints between the base and each.
    """
    groups = {}
    for pattern in dict.fromkeys(p for name in values for p in _patterns(name)):
        found = {name for name in names if re.fullmatch(pattern, name)}
        alike = found <= values.keys() and len({values[name] for name in found}) == 1
        if len(found) > 1 and alike and all(found.intersection(carriers[name]) == {name} for name in found):
            groups[pattern] = found
    written: dict[str, str] = {}
    for pattern, found in sorted(groups.items(), key=lambda group: (-len(group[1]), -len(group[0]))):
        if found.isdisjoint(written):
            written |= dict.fromkeys(found, pattern)
    return {written.get(name, re.escape(name)): value for name, value in values.items()}


def _patterns(name: str) -> list[str]:
    """Return the expressions for names that differ from this one by words before or behind a word that stays."""
    cuts = [match.start() for match in WORDS.finditer(name)][1:]
    ends = [(f".*{re.escape(name[at:])}", name[at:]) for at in cuts]
    ends += [(f"{re.escape(name[:at])}.*", name[:at]) for at in cuts]
    return [pattern for pattern, kept in ends if re.search(r"[^\W\d_]", kept)]
