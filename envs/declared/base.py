"""Motion of a robot's base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metarl.envs.arrays import Array, like, rows
from metarl.envs.state import State


@dataclass(frozen=True, eq=False)
class Base:
    """Motion of the base: from qpos and qvel if it floats, and from MuJoCo's derived fields otherwise.

    The base's frame has x forwards and z up. Commands are velocities in this frame, and for a guided base along the
    world's x and y, as its guides are.
    """

    body: int
    """Index of its body."""
    root: int
    """The body on the world that carries the base."""
    qpos: int
    """Address of its own free joint in qpos; -1: it has none."""
    qvel: int
    """Address of its own free joint in qvel; -1: it has none."""
    over_ground: Callable[[State, Array], Array]
    """(state, points [S, 3] m): return their heights over the ground, [S] m."""
    axes: Array | None = None
    """Rotation from the base's frame to its body's, [3, 3]; None: they are the same."""
    turns: bool = True
    """Whether commands turn with the base."""

    def place(self, state: State) -> Array:
        """Return the position in the world, [S, 3] m."""
        return state.xpos[:, self.body] if self.qpos < 0 else state.qpos[:, self.qpos : self.qpos + 3]

    def rotation(self, state: State) -> Array:
        """Return the rotation from the base to the world, [S, 3, 3]."""
        turn = self._body_rotation(state)
        return turn if self.axes is None else turn @ like(self.axes, turn)

    def _body_rotation(self, state: State) -> Array:
        if self.qpos < 0:
            return state.xmat[:, self.body].reshape(-1, 3, 3)
        w, x, y, z = self._quaternion(state)
        elements = (
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        return state.xp.permute_dims(state.xp.stack(elements).reshape(3, 3, -1), (2, 0, 1))

    def _quaternion(self, state: State) -> Array:
        return rows(state.qpos[:, self.qpos + 3 : self.qpos + 7])

    def height(self, state: State) -> Array:
        """Return the height over the ground along its normal, [S] m."""
        return self.over_ground(state, self.place(state))

    def gravity(self, state: State) -> Array:
        """Return the direction of gravity in the base's frame, [S, 3]."""
        if self.qpos < 0:
            return -self.rotation(state)[:, 2]
        w, x, y, z = self._quaternion(state)
        down = (2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1)
        return self._own(state.xp.stack(down, axis=1))

    def world_velocity(self, state: State) -> Array:
        """Return the velocity in the world's frame, [S, 3] m/s."""
        if self.qpos >= 0:
            return state.qvel[:, self.qvel : self.qvel + 3]
        arm = state.xpos[:, self.body] - state.subtree_com[:, self.root]
        return state.cvel[:, self.body, 3:] + state.xp.linalg.cross(state.cvel[:, self.body, :3], arm)

    def course(self, state: State) -> Array:
        """Return the velocity forwards and to the left, [S, 2] m/s; of a guided base, along the world's x and y."""
        return (self.velocity(state) if self.turns else self.world_velocity(state))[:, :2]

    def velocity(self, state: State) -> Array:
        """Return the velocity in the base's frame, [S, 3] m/s."""
        if self.qpos < 0:
            return state.xp.einsum("sij,si->sj", self.rotation(state), self.world_velocity(state))
        w, *axis = self._quaternion(state)
        v = rows(self.world_velocity(state))
        twist = _cross(axis, v)  # R^T v = v - 2 w (u x v) + 2 u x (u x v)
        turned = _cross(axis, twist)
        return self._own(state.xp.stack([v[i] + 2 * (turned[i] - w * twist[i]) for i in range(3)], axis=1))

    def angular_velocity(self, state: State) -> Array:
        """Return the angular velocity in the base's frame, [S, 3] rad/s."""
        if self.qpos >= 0:
            return self._own(state.qvel[:, self.qvel + 3 : self.qvel + 6])
        return state.xp.einsum("sij,si->sj", self.rotation(state), state.cvel[:, self.body, :3])

    def _own(self, vectors: Array) -> Array:
        """Return vectors [S, 3] in the base's frame, given in its body's."""
        return vectors if self.axes is None else vectors @ like(self.axes, vectors)

    def heading(self, state: State) -> Array:
        """Return cosine and sine of the angle from the world's x to the base's, seen from above, [S, 2]."""
        forwards = self.rotation(state)[:, :2, 0]
        length = state.xp.clip(state.xp.linalg.vector_norm(forwards, axis=1), 1e-9, None)
        return forwards / length[:, None]


def _cross(a: Any, b: Any) -> list[Array]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
