"""Quadruped: fast physics. A step's velocities differ from the exact ones by less than twice the time step's own error.

What each option costs and changes: `python -m benchmarks.quadruped_physics RUN`. Two changes pay for what they change:
a few iterations of PGS in place of Newton's method, and no friction loss, which is a constraint of every joint in every
step. Others do not: with one or two iterations of Newton's method a trained robot falls, and on pyramidal friction
cones feet slip twice as fast on a slope.
"""

from __future__ import annotations

import mujoco

SOLVER_ITERATIONS = 4
FRICTION_SPEED = 3.0  # rad/s, mean square over mean of the joints' speeds in a walk: friction takes as much power


def simplify(spec: mujoco.MjSpec) -> None:
    """Solve contacts by `SOLVER_ITERATIONS` of PGS, and make the joints' friction loss damping of as much power."""
    spec.option.solver = mujoco.mjtSolver.mjSOL_PGS
    spec.option.iterations = SOLVER_ITERATIONS
    for joint in spec.joints[1:]:  # the first is the trunk's
        joint.damping[0] += joint.frictionloss / FRICTION_SPEED
        joint.frictionloss = 0.0


def add_damping(spec: mujoco.MjSpec, value: float, neutral: float, per: float = 1.0) -> None:
    """Replace the neutral share of every joint's damping by value / per, N m s/rad."""
    for joint in spec.joints[1:]:
        joint.damping[0] = max(joint.damping[0] + (value - neutral) / per, 0.0)
