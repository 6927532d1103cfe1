"""Meta-reinforcement learning for robots. `metarl.train`, `load`, `evaluate`, `compare` and `write_report` are
the Python API; `declare_robot` makes tasks of your own robot, `GymTasks` of your own Gymnasium environment."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from metarl.envs.adapters.gymnasium_adapter import register_families

if TYPE_CHECKING:
    from metarl.api import compare, resume, train, write_report
    from metarl.config import RunConfig, load_config, preset
    from metarl.deployment.logs import load_episodes
    from metarl.envs.foreign.tasks import GymTasks, Info, category, quantity
    from metarl.envs.own_robot.family import declare_robot
    from metarl.identification.identifier import Identifier
    from metarl.provenance import VERSION as __version__  # noqa: N811
    from metarl.reporting.judge import evaluate
    from metarl.runs.run import load_run as load

__all__ = ["train", "resume", "load", "evaluate", "compare", "write_report"]
__all__ += ["Identifier", "load_episodes"]
__all__ += [
    "preset",
    "load_config",
    "RunConfig",
    "declare_robot",
    "GymTasks",
    "Info",
    "quantity",
    "category",
    "__version__",
]

_HOME = {
    "train": ("metarl.api", "train"),
    "resume": ("metarl.api", "resume"),
    "load": ("metarl.runs.run", "load_run"),
    "evaluate": ("metarl.reporting.judge", "evaluate"),
    "compare": ("metarl.api", "compare"),
    "write_report": ("metarl.api", "write_report"),
    "Identifier": ("metarl.identification.identifier", "Identifier"),
    "load_episodes": ("metarl.deployment.logs", "load_episodes"),
    "preset": ("metarl.config", "preset"),
    "load_config": ("metarl.config", "load_config"),
    "RunConfig": ("metarl.config", "RunConfig"),
    "declare_robot": ("metarl.envs.own_robot.family", "declare_robot"),
    "GymTasks": ("metarl.envs.foreign.tasks", "GymTasks"),
    "Info": ("metarl.envs.foreign.tasks", "Info"),
    "quantity": ("metarl.envs.foreign.tasks", "quantity"),
    "category": ("metarl.envs.foreign.tasks", "category"),
    "__version__": ("metarl.provenance", "VERSION"),
}
"""Module and name of each public name. They are imported on first use, because torch and MuJoCo take seconds."""

# Read by OpenMP when torch loads it. By default its threads spin for milliseconds while they wait, and on cores that
# anything else uses, the simulation's own threads for one, an update then takes up to a hundred times as long. Threads
# that sleep at once are woken in 40 us, and an update has hundreds of operations: GNU's spin for about as long as that.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

register_families()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)
