"""Strict reading of YAML files: plain types only, and limits on size.

In YAML, few bytes can grow to any size (aliases within aliases, thousands of levels, numbers of thousands of digits,
tags). Such files are refused with the position of the problem.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from metarl.envs.text import CONTROL, WHOLE, shown

MOST_BYTES = 200_000
"""Largest size of a file, which is read in about two seconds."""
MOST_VALUES = 20_000
"""Most values in a file, each counted as often as aliases repeat it."""
MOST_LEVELS = 30
"""Most levels of nested lists and mappings."""
READ = ("null", "bool", "int", "float", "str", "seq", "map")
"""Tags of the types that are read. A date is read as text; other tags are refused."""
TAG = "tag:yaml.org,2002:"


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file; ValueError if it is something else, such as a pipe, or too large.

    The message continues the file's name. OSError as `open` raises it. It does not wait for a pipe without a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("is a pipe or a device, no file")
    parts, size = [], 0
    with open(descriptor, "rb") as file:
        while part := file.read(2**20):
            parts.append(part)
            if (size := size + len(part)) > most_bytes:
                raise ValueError(f"has more than {most_bytes:,} bytes, which are not read")
    return b"".join(parts)


def read_yaml(path: Path) -> Any:
    """Read a YAML file; ValueError, which continues the file's name, says what is wrong and where.

    OSError as `open` raises it.
    """
    data = read_file(path, MOST_BYTES)
    try:
        return parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid UTF-8: {error.reason} at byte {error.start}") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML to plain types; ValueError says what is wrong, and where."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"is not valid YAML: {where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:  # a character that YAML does not know
        raise ValueError(f"is not valid YAML: {str(error).splitlines()[0]}") from error


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with limits, whose errors are all YAMLErrors with a position."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._levels = 0
        self._sizes: dict[int, int] = {}
        """Values in each composed node, by its id; 0 while the node is being composed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        self._levels += 1
        if self._levels > MOST_LEVELS:
            raise _refused(f"more than {MOST_LEVELS} levels of lists and mappings", mark)
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise _refused("an alias within what it stands for", mark)
        if not alias and node is not None:
            self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in _parts(node))
            if size > MOST_VALUES:
                raise _refused(f"more than {MOST_VALUES:,} values, aliases counted as what they stand for", mark)
        self._levels -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(TAG)
        if kind not in READ or not node.tag.startswith(TAG):
            meant = "a merge key (<<)" if kind == "merge" else f"the tag {shown(node.tag)}"
            raise _refused(f"{meant}, which is not read; write the values out", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, OverflowError, KeyError, IndexError, AttributeError, TypeError):
            raise _refused(f"no {kind}: {_short(node)}", node.start_mark) from None
        if isinstance(value, int) and not -WHOLE <= value < WHOLE:
            raise _refused(f"a whole number that does not fit in 64 bits: {_short(node)}", node.start_mark)
        if isinstance(value, str) and CONTROL.search(value):
            raise _refused(f"text with a control character: {_short(node)}", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused("a list or a mapping as a key", key_node.start_mark)
            if key in seen:
                raise _refused(f"key {shown(key)} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes what looks like a date for one, 010 for eight and 1:30 for ninety; whoever writes them does not.
WHOLE_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")
NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9_]+(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))$"
)
NO_NUMBER = re.compile(r"\.(?:nan|NaN|NAN)$")
PATTERNS = {"timestamp": (), "int": (WHOLE_NUMBER,), "float": (NUMBER, NO_NUMBER)}
"""What scalars of a type look like, where it is not what YAML 1.1 says."""
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, own) for tag, pattern in resolvers for own in PATTERNS.get(tag.removeprefix(TAG), (pattern,))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Return a whole number: leading zeros mean nothing."""
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-")
    return sign * (int(digits, 0) if digits[:2] in ("0x", "0b") else int(digits))


_StrictLoader.add_constructor(f"{TAG}int", _whole)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes text which `parse_yaml` would read as a number, such as 08."""


_Dumper.yaml_implicit_resolvers = {
    first: [*resolvers, *_StrictLoader.yaml_implicit_resolvers.get(first, [])]
    for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
}


def to_yaml(data: Any, flow: bool = False) -> str:
    """Return plain types as YAML, from which `parse_yaml` reads equal ones; flow: in one line as far as it goes."""
    return yaml.dump(data, Dumper=_Dumper, default_flow_style=flow, sort_keys=False)


def quoted(text: str) -> str:
    """Return text as it is written in a list or as a key, in quotes if it would be read as anything else without."""
    with contextlib.suppress(ValueError):
        if parse_yaml(f"[{text}]") == [text] and parse_yaml(f"{{{text}: 0}}") == {text: 0}:
            return text
    return "'" + text.replace("'", "''") + "'"


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """Return the children of a node."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _short(node: yaml.Node) -> str:
    """Return the text of a node, shortened."""
    return shown(node.value, 60) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"


def _refused(what: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, what, mark)
