"""Settings of the walking robots of three to six legs."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.bounds import bounded
from metarl.envs.robots.quadruped_settings import QuadrupedSettings

FEWEST, MOST = 3, 6


@dataclass(frozen=True)
class QuadrupedLegsSettings(QuadrupedSettings):
    """Walking robot of 3 to 6 of the Go1's legs, one policy for all, that follows velocity commands."""

    legs: tuple[int, ...] = bounded((3, 4, 6), at_least=FEWEST, at_most=MOST, nonempty=True)
    """Numbers of legs in training."""
    held_out_legs: tuple[int, ...] = bounded((5,), at_least=FEWEST, at_most=MOST)
    """Numbers of legs of held-out tasks. Empty: those of training."""
    payload_mass: tuple[float, float] = (0.0, 3.0)
