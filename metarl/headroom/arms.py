"""Arms of a headroom study: which agents are trained, and in which ways each is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metarl.agents.maml.papers import MAML_PAPERS
from metarl.agents.papers import Paper
from metarl.agents.rl2.papers import RL2_PAPERS
from metarl.agents.rma.papers import RMA_PAPERS
from metarl.config import RunConfig, options, preset, with_settings
from metarl.errors import UsageError, nearest
from metarl.files import require_name
from metarl.options import coerce, value_of

ORACLE, RANDOMISED, MEMORY, TEACHER = "oracle", "randomised", "memory", "teacher"
"""Names of the two arms whose difference is the headroom, of the one whose memory is reset in every way, and of an
oracle that teaches where ORACLE may not: see `Study.also_split`."""
EXAMPLES = {"label": "mine", "budget": "10e6"}
"""Values of what an arm may have besides settings, for messages."""
SCHEDULES = ("lr_decay_from", "lr_decay_updates", "teacher_updates", "pull_from", "pull_updates", "distil_updates")
"""Settings of agents that count iterations of a run: they grow and shrink with its length."""


@dataclass(frozen=True)
class Arm:
    """An agent that is trained, with each seed."""

    name: str
    """Name in folders and tables."""
    agent: str
    """Agent in the registry, or a published method that is one with other settings."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings besides the preset's, by dotted name."""
    words: str = ""
    """What it is, in words."""
    remembers: bool = True
    """Whether it is judged with its memory reset too."""
    taught_by: str = ""
    """Arm whose run of the same seed is its teacher; empty: none."""
    budget: float = 0.0
    """Env steps of each run; 0: those of the study."""
    judged_from: str = ""
    """Arm whose runs it judges with its own settings of the agent, instead of training; empty: none."""


def _as_settings(name: str, paper: Paper) -> Arm:
    """Return the arm of a method of an agent that remembers; a study records it as the agent with the settings."""
    settings = {f"agent.{setting}": value for setting, value in paper.settings.items()}
    return Arm(name, paper.agent, settings, paper.words)


EPISODES = {"training.adaptations": 0}
"""Settings of agents that are trained on episodes, not on trials: an iteration has one episode of each env."""
_ARMS = (
    Arm(RANDOMISED, "ppo", EPISODES, "PPO on all tasks, told nothing, without memory", remembers=False),
    _as_settings("frames", RL2_PAPERS["stack"]),
    Arm(MEMORY, "rl2", {}, "RL2: a recurrent memory over the whole trial"),
    Arm("student", "rma", {}, "RMA: a student of a teacher that is told the task"),
    Arm(ORACLE, "ppo", {**EPISODES, "training.reveal_task": True}, "PPO that is told the task", remembers=False),
    Arm(
        "fine_tuned",
        "ppo",
        {"agent.adaptation": "fine_tune"},
        "the randomised policy, fine-tuned on each task",
        remembers=False,
        judged_from=RANDOMISED,
    ),
    Arm("maml", "maml", {}, "MAML: gradient steps from a learnt start", remembers=False),
    Arm("varibad", "varibad", {}, "VariBAD: a posterior over the task"),
    Arm("pearl", "pearl", {}, "PEARL: a posterior over the task, off-policy"),
    Arm("estimator", "estimator", {}, "a memory that estimates what a simulator knows"),
    Arm("distilled", "distilled", {}, "the oracle, distilled into a memory, then PPO", taught_by=ORACLE),
    Arm(
        TEACHER,
        "ppo",
        {**EPISODES, "training.reveal_task": True},
        "an oracle that meets training tasks alone, where the oracle meets those judged on too: it teaches distilled, "
        "which needs it there; elsewhere where it is asked for",
        remembers=False,
    ),
    Arm("recurrent_ppo", "recurrent_ppo", {}, "RecurrentPPO of sb3-contrib"),
    Arm("prototype", "prototype", {}, "a policy on the prototype of its task"),
    *(_as_settings(name, paper) for name, paper in (RL2_PAPERS | RMA_PAPERS).items()),
    *(Arm(name, name, {}, paper.words, remembers=False) for name, paper in MAML_PAPERS.items()),
)
ARMS: Mapping[str, Arm] = {arm.name: arm for arm in _ARMS}
"""Arms by name."""
CORE = (RANDOMISED, "frames", MEMORY, "student", "distilled", TEACHER, ORACLE)
"""Arms of a study that names none."""
SHARING = ("distilled", TEACHER)
"""Those that share the env steps of one arm in such a study, half for each: all arms have as many."""


def core_arms(budget: float) -> list[Arm]:
    """Return the arms of a study that names none; budget: its env steps."""
    return [dataclasses.replace(ARMS[name], budget=budget / 2 if name in SHARING else 0.0) for name in CORE]


def read_arm(text: str) -> Arm:
    """Return the arm that `NAME[:agent.SETTING=VALUE,...][,budget=N][,label=LABEL]` names.

    UsageError says what is wrong.
    """
    name, _, given = text.partition(":")
    if name not in ARMS:
        raise UsageError(f"unknown arm {name!r}{nearest(name, ARMS)}")
    arm = ARMS[name]
    known = {k: t for k, t in options(preset(arm.agent)).items() if k.startswith("agent.")}
    for piece in given.split(",") if given else ():
        setting, equals, value = piece.partition("=")
        setting = setting.replace("-", "_")
        if setting in ("label", "budget") and not value:
            raise UsageError(f"arm {name}: {setting} needs a value, as in {name}:{setting}={EXAMPLES[setting]}")
        if setting == "label":
            require_name(value, f"arm {name}: label")
            arm = dataclasses.replace(arm, name=value)
        elif setting == "budget":
            arm = dataclasses.replace(arm, budget=_budget(arm, value))
        elif not equals or setting not in known:
            raise UsageError(f"arm {name}: {piece!r} is no setting of agent {arm.agent}{nearest(setting, known)}")
        else:
            own = {setting: value_of(setting, [value], known[setting])}
            arm = dataclasses.replace(arm, settings={**arm.settings, **own})
    return arm


def _budget(arm: Arm, text: str) -> float:
    budget = coerce(text, float, f"arm {arm.name}: budget")
    if arm.judged_from:
        raise UsageError(f"arm {arm.name} trains nothing, it judges the runs of {arm.judged_from}: it takes no budget")
    if budget < 1:
        raise UsageError(f"arm {arm.name}: budget is {budget:g}; it is the number of env steps of each run, at least 1")
    return budget


def config_of(arm: Arm, base: RunConfig, given: Mapping[str, Any], budget: float, horizon: int) -> RunConfig:
    """Return the configuration of an arm: its agent's preset on the family of `base`, for as many env steps.

    The evaluation is that of `base`, with the noise of exploration or without it, or in episodes apart, as in the
    preset.

    given: settings by dotted name that all arms have. budget: env steps, if the arm has none of its own. horizon:
    control steps of an episode.
    """
    config = preset(arm.agent, base.family_name)
    evaluation = dataclasses.replace(base.evaluation, **config.evaluation.acting)
    config = dataclasses.replace(config, family=base.family, evaluation=evaluation, tracking=base.tracking)
    config = with_settings(config, {**given, **arm.settings})
    t = config.training
    steps = horizon * t.tasks * t.envs_per_task * (t.adaptations + 1)
    iterations = max(1, round((arm.budget or budget) / steps))
    own = {name: getattr(config.agent, name) for name in SCHEDULES if getattr(config.agent, name, 0)}
    scaled = {f"agent.{name}": max(1, round(value * iterations / t.iterations)) for name, value in own.items()}
    scaled = {name: value for name, value in scaled.items() if name not in arm.settings}
    return with_settings(config, {**scaled, "training.iterations": iterations})
