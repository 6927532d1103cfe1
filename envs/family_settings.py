"""Settings of task families, in general.

Settings stand beside the families that they configure, in modules that import neither torch nor MuJoCo, so that
`metarl --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FamilySettings:
    """Settings that every family has."""

    horizon: int = 200
    """Steps an episode."""
