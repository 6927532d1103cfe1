"""Quadruped: fast physics, whose steps differ from the exact ones about as much as the error of the time step.

What each option costs and changes is in results/quadruped_physics.json (`python -m benchmarks.quadruped_physics`). Two
changes pay for what they change: a few iterations of PGS in place of Newton's method, and no friction loss, which is a
constraint of every joint in every step. Others do not: one or two iterations of Newton's method leave velocities
wrong by more than they change in a step, and pyramidal friction cones let feet creep.
"""

from __future__ import annotations

import mujoco

from metarl.envs.robots.quadruped_robot import JOINTS

SOLVER_ITERATIONS = 4
FRICTION_SPEED = 3.0  # rad/s, mean square over mean of the joints' speeds in a walk: friction takes as much power


def simplify(spec: mujoco.MjSpec) -> None:
    """Solve contacts by `SOLVER_ITERATIONS` of PGS, and make the joints' friction loss damping of as much power."""
    spec.option.solver = mujoco.mjtSolver.mjSOL_PGS
    spec.option.iterations = SOLVER_ITERATIONS
    for name in JOINTS:
        joint = spec.joint(name)
        joint.damping[0] += joint.frictionloss / FRICTION_SPEED
        joint.frictionloss = 0.0


def add_damping(spec: mujoco.MjSpec, value: float, neutral: float, per: float = 1.0) -> None:
    """Replace the neutral share of every joint's damping by value / per, N m s/rad."""
    for name in JOINTS:
        joint = spec.joint(name)
        joint.damping[0] = max(joint.damping[0] + (value - neutral) / per, 0.0)
