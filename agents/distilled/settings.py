"""Settings of a policy that is distilled from an oracle."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.teacher.settings import StudySettings
from metarl.bounds import bounded, other_run


@dataclass(frozen=True, kw_only=True)
class DistilledSettings(Rl2Settings, StudySettings):
    """A policy with a memory: it first imitates an oracle on what it meets itself, then PPO goes on from there."""

    teacher: str = other_run()
    """Folder of the oracle's run on this family, of any agent: metarl train --agent ppo training.reveal_task=true.
    Needed while it is imitated. Its noise is the policy's first one, in place of `initial_std`."""
    distil_updates: int = bounded(40, at_least=0)
    """Iterations of imitation."""
    critic_updates: int = bounded(10, at_least=0)
    """Iterations after it in which the critic alone learns, so that its first errors do not undo the policy."""
