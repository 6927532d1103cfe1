"""RL2 (Duan 2016): a network with a memory reads whole trials, learns to adapt in its memory, and is trained with PPO.

`metarl.agents.slots` has its inputs and its belief, `metarl.agents.cores` its memory.
"""

from __future__ import annotations

from metarl.agents.cores.registry import make_core
from metarl.agents.rl2.network import Rl2Network
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.trial_ppo.critic import CriticPpo
from metarl.agents.trial_ppo.network import CoreMaker


class Rl2(CriticPpo[Rl2Settings, Rl2Network]):
    """RL2 behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    label = "RL2"
    settings: Rl2Settings
    make_core: CoreMaker = staticmethod(make_core)

    def make_network(self) -> Rl2Network:
        """Return embeddings, core and heads."""
        return Rl2Network(self.settings, self.observation_size, self.action_size, self.make_core, self.told)
