"""Choose the simulator that the settings name on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import torch

from metarl.agents.agent import Agent
from metarl.envs.simulation import CPU, Simulator, Unsupported
from metarl.errors import UsageError, usage_errors

NAMES = ("cpu", "gpu", "auto")
PACKAGES = ("mujoco_warp", "warp", "array_api_compat")
"""Packages that the gpu simulator needs."""


def simulator_for(name: str, agent: Agent, setting: str = "training.simulator") -> Simulator:
    """Return the simulator that `cpu`, `gpu` or `auto` stands for; `gpu` is on the agent's device.

    setting: name of the setting, for messages. UsageError if the simulator is not available here.
    """
    if simulator_name(name, agent) == "cpu":
        return CPU
    device = torch.device(agent.device)
    with usage_errors(setting):
        from metarl.envs.warp.simulation import simulator

        return simulator("cpu" if device.type == "cpu" else f"cuda:{device.index or 0}")


@contextlib.contextmanager
def unsupported(setting: str) -> Iterator[None]:
    """Turn `Unsupported` into `UsageError`. setting: name of the setting that chose the simulator."""
    try:
        yield
    except Unsupported as error:
        raise UsageError(f"{setting}: {error}") from error


def simulator_name(name: str, agent: Agent) -> str:
    """Return `cpu` or `gpu`, which `auto` stands for one of, depending on the agent's device."""
    return "cpu" if name == "cpu" or (name == "auto" and not _on_gpu(agent)) else "gpu"


def _on_gpu(agent: Agent) -> bool:
    """Return whether the agent is on a GPU, and mujoco-warp is installed."""
    return torch.device(agent.device).type == "cuda" and all(map(importlib.util.find_spec, PACKAGES))
