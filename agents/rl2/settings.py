"""Settings of RL2."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.trial_ppo.settings import CriticBlock, HeadBlock, HeadSettings


@dataclass(frozen=True, kw_only=True)
class Rl2Block(HeadBlock):
    """Settings of the heads that read a memory, or what is in place of one."""

    observation_skip: bool = True
    """Give the observation to actor and critic directly, in addition to the memory's output."""


@dataclass(frozen=True, kw_only=True)
class Rl2Settings(Rl2Block, HeadSettings, CriticBlock):
    """RL2 (Duan 2016): a memory that reads whole trials, trained with PPO."""
