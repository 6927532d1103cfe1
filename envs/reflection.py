"""What a mirror makes of vectors: each element is another one's, or its negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metarl.envs.arrays import Array, like, namespace

STEPS = 5
"""Control steps for which a robot and its mirror image are compared from each state."""


@dataclass(frozen=True, eq=False)
class Reflection:
    """Where each element of a vector is found in the mirror."""

    places: np.ndarray
    """Element of the original, [n] int64."""
    signs: np.ndarray
    """Its sign, [n] float32."""

    def of(self, values: Array) -> Array:
        """Return vectors in the mirror, [..., n]."""
        return values[..., like(self.places, values)] * like(self.signs, values)

    def where(self, chosen: Array, values: Array) -> Array:
        """Return vectors [S, n], those of the chosen simulations [S] bool in the mirror."""
        return namespace(values).where(chosen[:, None], self.of(values), values)


@dataclass(frozen=True, eq=False)
class Mirror:
    """What a family's robot is told and tells in a mirror, left for right (`metarl.envs.mirror.mirrored`)."""

    motion_apart: float
    """Mean difference of robot and mirror image within some control steps, as a share of how far they moved."""
    reward_apart: float
    """Mean difference of their rewards, as a share of how much these vary."""
    never_varied: tuple[str, ...]
    """Elements of what is observed and told that were the same in all that was compared: they stay as they are."""
    unmet: tuple[str, ...]
    """Parameters of whose held-out or out-of-distribution values training meets some in the mirror."""
    actions: Reflection
    observation: Reflection
    privileged: Reflection
    told: Reflection
    """Of the encoded parameters (`metarl.envs.reveal.told`)."""

    @property
    def notes(self) -> list[str]:
        """Return how far the robot is from being its own mirror image, to 1 %, and what is not known, in words."""
        notes = []
        if max(self.motion_apart, self.reward_apart) >= 0.01:
            notes.append(
                f"the robot is nearly its own mirror image: within {STEPS} control steps of random actions, its motion "
                f"differs from the image's by {self.motion_apart:.0%}, and its reward by {self.reward_apart:.0%} of "
                "how much that varies"
            )
        if self.never_varied:
            first, *others = self.never_varied
            more = f" and {len(others)} more" if others else ""
            notes.append(f"{first}{more} did not vary under random actions, so each is taken for its own image")
        if self.unmet:
            notes.append(
                f"the mirror images of training tasks have values of {', '.join(self.unmet)} that are held out: no "
                "robot of training has them, but what is learned in the mirror is about them"
            )
        return notes
