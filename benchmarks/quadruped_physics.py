"""What does each way of making the quadruped's physics cheaper cost, and what does it change?

    python -m benchmarks.quadruped_physics RUN [--results results]

RUN: of the family quadruped; its policy walks. Each variant of the physics is held against today's exact options on the
same tasks, seeds and noise; writes results/quadruped_physics.json. Costs are CPU times of one thread in mujoco.batch,
as ratios within one run. The error of a step is that of the velocities after one control step from a state that the
exact physics came to, by robots without delays; that of half the time step is the error of the time step itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import mujoco
import numpy as np
import torch

from benchmarks.quadruped import COMMANDS, NAMES, speeds
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_parameters import JOINTS
from metarl.envs.robots.quadruped_physics import SOLVER_ITERATIONS
from metarl.envs.robots.quadruped_robot import FRAME_SKIP, GO1
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.simulation import CPU, CpuSimulation
from metarl.envs.task import Task
from metarl.provenance import provenance
from metarl.runs.run import Run, load_run
from metarl.runs.trial import single_torch_thread, stream, streams

TASKS, STEPS, ROUNDS = 24, 60, 5
STATE = ("qpos", "qvel", "qacc_warmstart")
"""State of a simulation without delays, besides its control signals."""
SLOPES = (15, 20)  # degrees
ROBOTS = 10
"""Held-out robots, each given every command."""
STANDING = QuadrupedSettings(
    payload_mass=(0, 0), friction=(0.8, 0.8), motor_strength=(1, 1), action_delay=(0, 0), horizon=501
)
STIFF = {"kp": (100.0, 100.0), "kd": (3.0, 3.0)}  # it leans on a slope, and falls with its usual gains
DROP = 0.3  # m
Edit = Callable[[mujoco.MjSpec], None]


def options(**values: Any) -> Edit:
    """Return an edit that sets options of the simulation."""

    def edit(spec: mujoco.MjSpec) -> None:
        for name, value in values.items():
            setattr(spec.option, name, value)

    return edit


def without_friction_loss(spec: mujoco.MjSpec) -> None:
    """Remove the joints' friction loss."""
    for name in JOINTS:
        spec.joint(name).frictionloss = 0.0


def feet_alone(spec: mujoco.MjSpec) -> None:
    """Let thighs and calves pass through the ground."""
    for geom in spec.body("trunk").find_all("geom"):
        if geom.name.endswith(("_thigh", "_calf")):
            geom.conaffinity = 0


def together(*edits: Edit) -> Edit:
    """Return an edit that makes all of these."""

    def edit(spec: mujoco.MjSpec) -> None:
        for each in edits:
            each(spec)

    return edit


PYRAMIDS = options(cone=mujoco.mjtCone.mjCONE_PYRAMIDAL)
PGS = options(solver=mujoco.mjtSolver.mjSOL_PGS, iterations=SOLVER_ITERATIONS)
EDITS: dict[str, Edit] = {
    "exact": options(),
    "pyramidal cones": PYRAMIDS,
    "1 Newton iteration": options(iterations=1),
    "2 Newton iterations": options(iterations=2),
    "no friction loss": without_friction_loss,
    "feet alone collide": feet_alone,
    "those with 1 iteration": together(PYRAMIDS, options(iterations=1), without_friction_loss, feet_alone),
    f"{SOLVER_ITERATIONS} PGS iterations": PGS,
}
"""Edits of the exact physics, by name."""
FAST = "fast"
VARIANTS = (*EDITS, FAST)


def family_of(settings: QuadrupedSettings, variant: str) -> TaskFamily:
    """Return the family with a variant of the physics."""
    if variant == FAST:
        return make_family(dataclasses.replace(settings, physics="fast"))
    exact = make_family(dataclasses.replace(settings, physics="exact"))

    def base(**layout: Any) -> mujoco.MjSpec:
        spec = exact.base(**layout)
        EDITS[variant](spec)
        return spec

    return dataclasses.replace(exact, base=base)


class Timed(CpuSimulation):
    """A simulation that counts the CPU time of its steps."""

    took = 0.0

    def step(self, chosen: Array, substeps: int) -> None:
        began = time.process_time()
        super().step(chosen, substeps)
        self.took += time.process_time() - began


class Player:
    """Episodes of tasks under a run's policy with its noise, or under random targets."""

    def __init__(self, family: TaskFamily, tasks: Sequence[Task], run: Run | None) -> None:
        """run: None for random targets, N(0, 1) times the action's scale."""
        simulator = dataclasses.replace(CPU, make=self._timed)
        self.env = BatchedEnv(family, len(tasks), 1, threads=1, simulator=simulator)
        self.env.set_tasks(tasks)
        self._run = run

    def _timed(self, model: mujoco.MjModel, num_sims: int, threads: int) -> Timed:
        self._simulation = Timed(model, num_sims, threads)
        return self._simulation

    def play(self, steps: int, explore: bool = True, seen: Callable[[Array], None] | None = None) -> float:
        """Play from the start; returns the CPU seconds of a control step of one robot.

        seen: called before every step with the envs whose episode runs, [M] bool, and after the last.
        """
        env, count = self.env, self.env.num_tasks
        rng, observation = np.random.default_rng(0), env.reset(streams(1, "physics", 0, count))
        belief = self._run.agent.begin(count, 1, ()) if self._run else None
        self._simulation.took, taken = 0.0, 0
        with torch.no_grad(), single_torch_thread():
            for _ in range(steps):
                noise = rng.standard_normal((count, 1, len(JOINTS))).astype(np.float32)
                action = noise
                if self._run is not None:
                    given = torch.from_numpy(noise) if explore else None
                    chosen, belief = self._run.agent.act(belief, torch.from_numpy(observation), given)
                    action = chosen.numpy()
                if seen is not None:
                    seen(env.active[:, 0])
                taken += int(env.active.sum())
                observation = env.step(action).observations
        if seen is not None:
            seen(env.active[:, 0])
        return self._simulation.took / taken


def costs(settings: QuadrupedSettings, tasks: Sequence[Task], run: Run | None) -> dict[str, list[float]]:
    """Return how many times cheaper each variant is than the exact physics, by round."""
    players = {name: Player(family_of(settings, name), tasks, run) for name in VARIANTS}
    rounds = [{name: player.play(STEPS) for name, player in players.items()} for _ in range(ROUNDS)]
    return {name: [taken["exact"] / taken[name] for taken in rounds] for name in VARIANTS}


def visited(settings: QuadrupedSettings, tasks: Sequence[Task], run: Run | None) -> list[dict[str, Array]]:
    """Return the states, control signals and running episodes before each step of the exact physics."""
    player, found = Player(family_of(settings, "exact"), tasks, run), []
    arrays = {name: player.env.simulation.bind(name) for name in (*STATE, "ctrl")}

    def seen(running: Array) -> None:
        found.append({"running": running, **{name: array.copy() for name, array in arrays.items()}})

    player.play(STEPS, seen=seen)
    return [
        {**before, "ctrl": after["ctrl"], "qvel_after": after["qvel"], "running": before["running"] & after["running"]}
        for before, after in itertools.pairwise(found[4:])  # they have landed
    ]


def step_error(
    family: TaskFamily, tasks: Sequence[Task], states: list[dict[str, Array]], share: int = 1
) -> list[float]:
    """Return the rms error of the trunk's velocity, m/s, and of the joints', rad/s, after a control step.

    share: the time step is divided by it.
    """
    errors = []
    for m, task in enumerate(tasks):
        model = family.compile(task)
        model.opt.timestep /= share
        data = mujoco.MjData(model)
        for state in (state for state in states if state["running"][m]):
            for name in (*STATE, "ctrl"):
                getattr(data, name)[:] = state[name][m]
            mujoco.mj_step(model, data, FRAME_SKIP * share)
            errors.append(data.qvel - state["qvel_after"][m])
    square = np.square(errors)
    return [math.sqrt(square[:, :3].sum(1).mean()), math.sqrt(square[:, 6:].mean())]


def standing(variant: str, degrees: float) -> dict[str, float]:
    """Return the slip, torques and depth of the feet of robots that stand still on a slope with every heading."""
    angle, stiff = math.radians(degrees), STIFF if degrees else {}
    family = family_of(dataclasses.replace(STANDING, slope=(angle, angle), **stiff), variant)
    env = BatchedEnv(family, 1, 16, threads=1)
    torque, depth = env.simulation.bind("actuator_force"), []
    env.set_tasks([family.task({})])
    env.reset([np.random.default_rng(0)])
    up, places, torques = np.array([-math.sin(angle), 0.0, math.cos(angle)]), [], []
    feet = env.simulation.bind("geom_xpos")
    model = family.compile(family.task({}))
    chosen = [model.geom(f"{leg}_foot").id for leg in ("FR", "FL", "RR", "RL")]
    for _ in range(family.horizon - 1):  # the last step would end all episodes
        env.step(np.zeros((1, 16, len(JOINTS)), dtype=np.float32))
        places.append(env.poses[:, :3].copy())
        torques.append(torque.copy())
        depth.append(GO1.foot_radius - feet[:, chosen] @ up)
    stood, half = env.active[0], family.horizon // 2
    seconds = half * env.dt
    slip = np.linalg.norm((places[-1] - places[half - 1])[stood], axis=1) / seconds
    return {
        "slip_mm_per_s": 1e3 * float(slip.mean()) if stood.any() else math.nan,
        "stood": int(stood.sum()),
        "torque_rms_Nm": float(np.sqrt(np.mean(np.square(torques[half:])))),
        "torque_peak_Nm": float(np.abs(torques[half:]).max()),
        "foot_depth_mm": 1e3 * float(np.mean(np.maximum(depth[half:], 0))),
    }


def drop(variant: str) -> dict[str, float]:
    """Return by how much the energy of a robot that is dropped rises in a step at most, and in all; it should fall.

    With constant targets the servos are springs and dampers: energy is kinetic, of height, and of the springs.
    """
    family = family_of(STANDING, variant)
    model = family.compile(family.task({}))
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    data = mujoco.MjData(model)
    data.qpos[:] = model.key("home").qpos
    data.qpos[2] += DROP
    energies = []
    for _ in range(400):
        mujoco.mj_forward(model, data)
        spring = 0.5 * GO1.kp * float(np.square(data.qpos[7:] - GO1.home_pose).sum())
        energies.append(float(data.energy.sum()) + spring)
        mujoco.mj_step(model, data)
    rises = np.maximum(np.diff(energies), 0)
    return {"largest_rise_J": float(rises.max()), "rises_J": float(rises.sum())}


def walking(run: Run, variant: str) -> dict[str, float]:
    """Return what the run's policy does under the commands of benchmarks.quadruped on held-out robots."""
    settings = run.family.settings
    assert isinstance(settings, QuadrupedSettings)
    family = family_of(dataclasses.replace(settings, command="task", horizon=500), variant)
    drawn = family.sample(ROBOTS, stream(1, "physics/robots"), "held_out")
    asked = [command for _ in drawn for command in COMMANDS]
    tasks = [family.task({**robot.values, **dict(zip(NAMES, c, strict=True))}) for robot in drawn for c in COMMANDS]
    player, path, torques, powers, depths, running = Player(family, tasks, run), [], [], [], [], []
    bind = player.env.simulation.bind
    torque, velocity, places = bind("actuator_force"), bind("qvel"), bind("geom_xpos")
    model = family.compile(tasks[0])
    feet = [model.geom(f"{leg}_foot").id for leg in ("FR", "FL", "RR", "RL")]

    def seen(active: Array) -> None:
        path.append(player.env.poses.copy())
        torques.append(torque.copy())
        powers.append(np.abs(torque * velocity[:, 6:]).sum(1))
        depths.append(np.maximum(GO1.foot_radius - places[:, feet, 2], 0).max(1))
        running.append(active)

    player.play(family.horizon, explore=False, seen=seen)
    # the last call comes after the time limit, where no episode runs any more: the one before it has the last poses
    stood, first = running[-2], round(0.2 / player.env.dt)
    error = np.abs(speeds(np.stack(path[:-1]), player.env.dt) - asked)[stood]
    walks = np.stack(running)[first:]  # landed, and not fallen yet
    applied, spent, deep = (np.stack(x)[first:][walks] for x in (torques, powers, depths))
    return {
        **{f"{name}_error": float(error[:, i].mean()) if stood.any() else math.nan for i, name in enumerate(NAMES)},
        "falls": int((~stood).sum()),
        "episodes": len(tasks),
        "power_W": float(spent.mean()),
        "torque_rms_Nm": float(np.sqrt(np.square(applied).mean())),
        "torque_peak_Nm": float(np.abs(applied).max()),
        "foot_depth_max_mm": 1e3 * float(deep.max()),
        "foot_depth_mm": 1e3 * float(deep.mean()),
    }


def measure(run: Run) -> dict[str, Any]:
    """Return all figures of every variant."""
    settings = run.family.settings
    assert isinstance(settings, QuadrupedSettings)
    tasks = make_family(settings).sample(TASKS, stream(1, "physics/tasks"))
    prompt = dataclasses.replace(settings, action_delay=(0.0, 0.0))  # half the time step keeps half the old signals
    prompt_tasks = make_family(prompt).sample(TASKS, stream(1, "physics/tasks"))
    record: dict[str, Any] = {name: {} for name in VARIANTS}
    for kind, policy in (("walk", run), ("random targets", None)):
        for name, rounds in costs(settings, tasks, policy).items():
            record[name][f"times_cheaper, {kind}"] = {"median": median(rounds), "rounds": rounds}
        states = visited(prompt, prompt_tasks, policy)
        halved = step_error(family_of(prompt, "exact"), prompt_tasks, states, share=2)
        record["exact"][f"step_error_of_half_the_time_step, {kind}"] = halved
        for name in VARIANTS:
            record[name][f"step_error, {kind}"] = step_error(family_of(prompt, name), prompt_tasks, states)
    for name in VARIANTS:
        record[name]["standing"] = {f"{degrees} degrees": standing(name, degrees) for degrees in (0, *SLOPES)}
        record[name]["drop"], record[name]["walking"] = drop(name), walking(run, name)
    return record


def row(name: str, found: dict[str, Any]) -> str:
    """Return the line of a variant in the table."""
    cost = [found[f"times_cheaper, {kind}"]["median"] for kind in ("walk", "random targets")]
    error = [found[f"step_error, {kind}"][0] for kind in ("walk", "random targets")]
    slip = [found["standing"][f"{degrees} degrees"]["slip_mm_per_s"] for degrees in SLOPES]
    w = found["walking"]
    tracking = f"{w['forward_velocity_error']:6.3f} {w['yaw_rate_error']:6.3f} {w['falls']:4d}"
    forces = f"{w['power_W']:6.1f} {w['torque_rms_Nm']:6.2f} {w['torque_peak_Nm']:6.1f} {w['foot_depth_mm']:6.2f}"
    return (
        f"{name:<24} {cost[0]:5.2f} {cost[1]:5.2f} {1e3 * error[0]:8.1f} {1e3 * error[1]:8.1f} {slip[0]:6.2f} "
        f"{slip[1]:6.2f} {tracking} {forces} {found['drop']['rises_J']:6.2f}"
    )


HEAD = (
    f"{'':<24} {'x cheaper':>11} {'step error mm/s':>17} {'slip mm/s':>13} {'error m/s rad/s falls':>18} "
    f"{'W':>5} {'N m':>6} {'peak':>6} {'mm in':>6} {'rise J':>6}\n"
    f"{'':<24} {'walk':>5} {'rand':>5} {'walk':>8} {'rand':>8} {'15':>6} {'20':>6}"
)


def without_nan(value: Any) -> Any:
    """Return plain types with None for what no robot came to: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: without_nan(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What each option of the quadruped's physics costs and changes.")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    run = load_run(given.run, device="cpu")
    if run.config.family_name != "quadruped":
        parser.error(f"{given.run} is of the family {run.config.family_name}; give a run of quadruped")
    record = measure(run)
    print(HEAD)
    for name, found in record.items():
        print(row(name, found))
    halved = [record["exact"][f"step_error_of_half_the_time_step, {kind}"][0] for kind in ("walk", "random targets")]
    print(f"step error of half the time step: {1e3 * halved[0]:.1f} mm/s in the walk, {1e3 * halved[1]:.1f} at random")
    given.results.mkdir(parents=True, exist_ok=True)
    trained = {"agent": run.config.agent_name, "env_steps": run.env_steps, "iteration": run.iteration}
    text = json.dumps(without_nan({"policy": trained, "variants": record, **provenance(run.config)}), indent=1)
    (given.results / "quadruped_physics.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
