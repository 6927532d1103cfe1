"""Export a policy as an ONNX file that runs without metarl and torch, and check it against the agent."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents import beliefs
from metarl.agents.agent import Belief, Deployable
from metarl.agents.moments import INPUT_CLIP
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.control import Signals
from metarl.envs.family import TaskFamily
from metarl.envs.reveal import told_as
from metarl.errors import RunError, UsageError, describe
from metarl.files import make_folder, write
from metarl.provenance import VERSION, commit
from metarl.runs.checkpoint import is_finite
from metarl.runs.controller import OutOfRange
from metarl.runs.run import Run
from metarl.runs.trial import stream, streams

FORMAT = 3
"""Version of the metadata; it is raised whenever a program that reads them has to change."""
KEY = "metarl"
"""Key of the metadata in the file; they are JSON."""
OPSET = 17
"""Version of ONNX's operators, of 2022, which old runtimes on robots support."""
TOLERANCE = 1e-5
"""Largest difference of ONNX Runtime's actions from torch's, relative for actions above 1; of commands in units of
action."""
CHECKED_EPISODES = 2
"""Episodes of the check; a memory is carried from one to the next."""


@dataclass(frozen=True)
class Export:
    """A written ONNX file."""

    path: Path
    size: int
    """Size of the file, bytes."""
    steps: int
    """Number of steps that it was checked on."""
    error: float
    """Largest difference from torch on these steps, relative for actions above 1."""


class Commanded(nn.Module):
    """A deployable policy that also returns the command, MuJoCo's control signals, as the env writes them.

    It clips observations as the env does: a robot's program need not.
    """

    low: Tensor
    high: Tensor
    offset: Tensor
    gain: Tensor
    bounds: Tensor | None

    def __init__(self, policy: nn.Module, family: TaskFamily):
        super().__init__()
        self.policy, self.scale = policy, family.action_scale
        control = {"low": family.action_low, "high": family.action_high}
        control |= {"offset": family.control.offset, "gain": family.control.gain}
        for name, values in control.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))
        bounds = family.observation_bounds
        self.register_buffer("bounds", None if bounds is None else torch.tensor(bounds, dtype=torch.float32))

    def forward(self, observation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return (action, command, *states), each [1, ...]."""
        if self.bounds is not None:
            observation = torch.minimum(torch.maximum(observation, -self.bounds), self.bounds)
        returned = self.policy(observation, *others)
        action, *states = (returned,) if isinstance(returned, Tensor) else returned
        applied = torch.minimum(torch.maximum(action * self.scale, self.low), self.high)
        return action, applied * self.gain + self.offset, *states


def export_run(run: Run, path: Path, belief: Belief | None = None, source: str | None = None) -> Export:
    """Write the mean actions of a run's policy at a belief about one task; None: the belief before adaptation.

    The file is checked in ONNX Runtime against the agent, on episodes in the family's env, before it is written.
    source: file of the belief, for the metadata. UsageError without onnx and onnxruntime; RunError if the check fails.
    """
    require_packages()
    controller = run.start(belief, episodes_per_shot=1)
    adaptations, belief = controller.adaptations if run.agent.facts.belief_per_env else 0, controller.belief
    policy = run.agent.deployable(belief)
    if not is_finite([beliefs.saved(belief), dict(policy.module.state_dict())]):
        raise UsageError(
            f"the policy{f' at {source}' if source else ''} is not finite, and is not exported; adapt again"
        )
    data = to_onnx(policy, run.family, describe_policy(run, policy, belief, source, adaptations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRange)  # for tasks outside training, or an untrained policy
        steps, error = check(data, run, belief)
    make_folder(path.parent, "--output")
    write(path, data, "--output")
    return Export(path, len(data), steps, error)


def require_packages() -> None:
    """UsageError, with what to install, unless onnx and onnxruntime can be imported."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"an export needs onnx and onnxruntime ({describe(error)}): pip install 'metarl-robotics[deploy]'"
        ) from None


def to_onnx(policy: Deployable, family: TaskFamily, about: dict[str, Any]) -> bytes:
    """Return the policy as the bytes of an ONNX file. about: metadata."""
    import onnx

    outputs = [policy.outputs[0], "command", *policy.outputs[1:]]
    module = Commanded(policy.module, family).eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # torch's newer exporter also needs onnxscript; this one traces, and `check` tests what it traced.
        warnings.simplefilter("ignore")
        file = Path(folder, "policy.onnx")
        torch.onnx.export(
            module,
            tuple(policy.inputs.values()),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(policy.inputs),
            output_names=outputs,
        )
        model = onnx.load(file)
    model.producer_name, model.producer_version = "metarl", VERSION
    model.doc_string = f"{about['agent']} on {about['family']}, iteration {about['iteration']}"
    onnx.helper.set_model_props(model, {KEY: json.dumps(about, indent=1, allow_nan=False)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def told(run: Run) -> list[str]:
    """Return the observations that an oracle has and others do not, with what they are."""
    return list(map(": ".join, told_as(run.family).items())) if run.config.training.reveal_task else []


def describe_policy(
    run: Run, policy: Deployable, belief: Belief, source: str | None = None, adaptations: int = 0
) -> dict[str, Any]:
    """Return the metadata that a control program needs, as plain types."""
    family, moments = run.family, run.agent.observation_moments(belief)
    bounds = family.observation_bounds
    known = moments is not None and float(moments.count) > 0
    states = [name for name in policy.inputs if f"next_{name}" in policy.outputs]
    return {
        "format": FORMAT,
        "run": run.directory.resolve().name,
        "agent": run.config.agent_name,
        "family": family.name,
        "iteration": run.iteration,
        "belief": source,
        "dt": family.dt,
        "horizon": family.horizon,
        "adaptations": adaptations,
        "states": {name: policy.inputs[name].flatten().tolist() for name in states},
        "observation": {
            "names": [element.name for element in family.elements],
            "units": [element.unit or "1" for element in family.elements],
            "mean": moments.mean.tolist() if moments and known else None,
            "std": moments.std.tolist() if moments and known else None,
            "clip": None if bounds is None else _finite(bounds),
            "read_within": INPUT_CLIP if known else None,
            "told": told(run),
        },
        "action": {
            "names": list(family.control.names),
            "scale": family.action_scale,
            "low": _finite(family.action_low),
            "high": _finite(family.action_high),
        },
        "command": describe_signals(family.control),
        "home": dict(family.control.home),
        "versions": {
            "metarl": VERSION,
            "commit": commit(),
            **{name: metadata.version(name) for name in ("mujoco", "torch", "onnx", "onnxruntime", "numpy")},
        },
        "notes": {
            "observation": "as sensed, in these units; the policy clips it to +-clip, where given, standardises it "
            "with mean and std, if given, and clips that to read_within standard deviations; 'k steps ago' is what it "
            "was k control steps before, at an episode's first steps what it was at its start; those in told are what "
            "an oracle knows, which you supply",
            "action": "output of the policy, one for each motor, with the motor's name; a bound that is null is none",
            "command": "MuJoCo's control signal of each motor: offset + gain * clip(action * scale, low, high), "
            "clipped to ctrl_range if there is one. It asks the motor's joint for zero + size * command, in the given "
            "unit; for the kind 'position from home' the command is not the joint's angle. Of the kind 'action' it is "
            "the clipped action, of which a function of the robot's (control.actuator) made the signals in simulation",
            "home": "position of each hinge (rad) and slide (m) at the home pose",
            "states": "initial inputs; at later steps the outputs next_NAME. dt is the control step, s",
            "adaptations": "number of episodes across which the states are carried; a later one starts from what they "
            "were at the end of the last of these",
        },
    }


def _finite(values: Array) -> list[float | None]:
    """Return numbers for JSON; null for an infinite one, as a bound that there is none."""
    return [float(value) if np.isfinite(value) else None for value in values]


def describe_signals(control: Signals) -> dict[str, Any]:
    """Return control signals as plain types; null for a missing joint or control range."""
    return {
        "names": list(control.names),
        "joints": [joint or None for joint in control.joints],
        "kinds": list(control.kinds),
        "units": list(control.units),
        **{name: getattr(control, name).tolist() for name in ("offset", "gain", "zero", "size")},
        "ctrl_range": [pair if np.isfinite(pair).all() else None for pair in control.ranges.tolist()],
    }


class ExportedPolicy:
    """An exported policy in ONNX Runtime, as docs/control_loop.py runs it."""

    def __init__(self, data: bytes):
        import onnxruntime

        self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.about = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
        self._inputs = {i.name: np.zeros(i.shape, dtype=np.float32) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._inputs |= {name: np.array([values], np.float32) for name, values in self.about["states"].items()}

    def act(self, **given: Any) -> tuple[Array, Array]:
        """Return (action, command), each [act]. given: inputs by name; those that the file lacks are ignored."""
        inputs = self._inputs | {
            name: np.asarray(value, dtype=np.float32).reshape(self._inputs[name].shape)
            for name, value in given.items()
            if name in self._inputs
        }
        returned = dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
        self._inputs |= {name: returned[f"next_{name}"] for name in self.about["states"]}
        return np.asarray(returned["action"])[0], np.asarray(returned["command"])[0]


def check(data: bytes, run: Run, belief: Belief) -> tuple[int, float]:
    """Return (steps, largest relative difference) between file and agent, on episodes with exploration noise.

    RunError if an action or command differs by more than `TOLERANCE`.
    """
    family, exported = run.family, ExportedPolicy(data)
    seed, split = run.config.evaluation.seeds[0], run.config.evaluation.split
    task = family.sample(1, stream(seed, "evaluation/tasks"), split)[0]
    env, rngs = BatchedEnv(family, 1, 1, threads=1, like=task), streams(seed, "evaluation/episodes", 0, 1)
    env.set_tasks([task])
    shots = CHECKED_EPISODES if run.agent.facts.belief_per_env else 0
    controller = run.start(belief, adaptations=shots, episodes_per_shot=1, explore="always", rng=rngs[0])
    steps, worst = 0, 0.0
    for _ in range(CHECKED_EPISODES):
        observation, reward, previous, first = env.reset(rngs)[0, 0], 0.0, np.zeros(family.action_size), True
        while env.active[0, 0]:
            with torch.no_grad():
                mean, _ = run.agent.act(controller.belief, torch.from_numpy(observation[None, None]), None)
            expected = mean.cpu().numpy()[0, 0]
            slot = {"observation": observation, "previous_action": previous, "previous_reward": reward}
            action, command = exported.act(**slot, episode_start=first, episode_end=False)
            steps += 1
            apart = {
                "action": _difference(action, expected),
                "command": _difference(command, controller.command(expected), np.abs(family.control.gain)),
            }
            worst = max(worst, *apart.values())
            for name, own in apart.items():
                if not own <= TOLERANCE:
                    raise RunError(
                        f"no file is written: at step {steps} ONNX Runtime's {name} differs from torch's by {own:.2g}, "
                        f"more than {TOLERANCE:g}; please report it with the versions of torch, onnx and onnxruntime"
                    )
            previous, first = controller.act(observation), False
            step = env.step(previous[None, None])
            observation, reward = step.observations[0, 0], float(step.rewards[0, 0])
            controller.observe(reward, bool(step.terminated[0, 0]), bool(step.truncated[0, 0]))
        slot = {"observation": observation, "previous_action": previous, "previous_reward": reward}
        exported.act(**slot, episode_start=False, episode_end=True)
        controller.end_episode(observation)
    return steps, worst


def _difference(ours: Array, theirs: Array, unit: Array | float = 1.0) -> float:
    """Return the largest |ours - theirs| / max(unit, |theirs|); where both are 0, 0."""
    apart, size = np.abs(ours - theirs), np.maximum(unit, np.abs(theirs))
    return float(np.max(np.divide(apart, size, out=apart.astype(np.float64), where=size > 0)))
