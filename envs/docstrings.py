"""Docstrings of the fields of dataclasses, which settings and declarations are documented by."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
import typing


@functools.cache
def field_texts(cls: type) -> dict[str, str]:
    """Return the docstring of each field of a dataclass by name, its bases' too, each as one paragraph."""
    found = {}
    for owner in reversed(cls.__mro__[:-1]):
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found
