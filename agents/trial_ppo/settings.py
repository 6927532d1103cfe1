"""Settings of PPO over whole trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.ppo_settings import PpoBlock
from metarl.bounds import bounded, newer


@dataclass(frozen=True, kw_only=True)
class TrialPpoBlock(PpoBlock):
    """Settings of agents that are trained with PPO over whole trials, besides those of a memory.

    On HalfCheetah these mattered most: discount .97 with lambda .9 and many small minibatches (its presets have them),
    a small initial std, two hidden layers in each head, many small meta-updates (20 trials), and a critic that observes
    how near the trial's end is.
    """

    reward_input: bool = newer(True, before=True)
    """Let the memory read the reward of the last step. A robot that cannot measure its reward needs false."""
    observation_embedding: int = bounded(32, at_least=1)
    """Width of the observation's embedding."""
    action_embedding: int = bounded(16, at_least=1)
    """Width of the previous action's embedding."""
    reward_embedding: int = bounded(16, at_least=1)
    """Width of the previous reward's embedding."""
    chunk: int = bounded(0, at_least=0)
    """Slots of a piece of a trial. Minibatches are of pieces, each read with the memory that was there when the
    iteration began, and gradients do not cross from one to the next. 0: a trial is one piece."""
    head_sizes: tuple[int, ...] = bounded((128, 128), at_least=1)
    """Widths of the hidden layers of the actor, and of the critic."""
    initial_std: float = 0.25
    min_std: float = bounded(1e-3, above=0)
    """Smallest standard deviation of the policy."""
    lr: float = 5e-4
    lr_end: float = 1e-4
    epochs: int = 6
    """PPO passes over the data of an iteration."""
    minibatches: int = 2
    """Minibatches a pass, each of whole trials, or of pieces of them (`chunk`)."""
    value_clip: float = bounded(0.0, at_least=0)
    """Clip range of the value's change in an iteration, in units of the normalised return. 0: no clipping."""
    max_gradient_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrialPpoSettings(MemorySettings, TrialPpoBlock):
    """Settings of agents that are trained with PPO over whole trials and hold a memory of any kind."""


@dataclass(frozen=True, kw_only=True)
class CriticBlock(TrialPpoBlock):
    """Settings of agents whose critic may read more than the policy does."""

    privileged_critic: bool = False
    """Let the critic, which only training needs, read what a simulator knows: the task's parameters and the family's
    privileged terms. Neither the policy nor an exported file reads them."""


@dataclass(frozen=True, kw_only=True)
class HeadChoice(AgentSettings):
    """Settings of agents whose policy may have other heads than a plain one."""

    head: Literal["plain", "film", "hypernetwork"] = newer("plain", before="plain")
    """How what is known of the task enters the policy. plain: as an input beside the observation; film: it scales and
    shifts the hidden layers (Perez 2018); hypernetwork: it generates all weights (Beck 2022), several times as slow.
    The critic is always plain."""
    generated_sizes: tuple[int, ...] = newer((32, 32), before=(32, 32), at_least=1, at_most=256)
    """Widths of the hidden layers of the actor that a hypernetwork generates, in place of the policy's own."""


@dataclass(frozen=True, kw_only=True)
class HeadBlock(HeadChoice, TrialPpoBlock):
    """Settings of agents that are trained with PPO over whole trials and whose policy may have other heads."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings(HeadBlock, TrialPpoSettings):
    """Settings of agents that hold a memory of any kind and whose policy may have other heads."""
