"""The network of RMA."""

from __future__ import annotations

from torch import Tensor

from metarl.agents.rma.settings import RmaSettings
from metarl.agents.teacher.network import InformedNetwork
from metarl.agents.trial_ppo.network import CoreMaker, hidden_layers


class RmaNetwork(InformedNetwork):
    """A policy of observation and latent, an encoder of privileged values, and a memory that estimates its latent."""

    def __init__(
        self, settings: RmaSettings, observation_size: int, action_size: int, privileged_size: int, make_core: CoreMaker
    ) -> None:
        super().__init__(settings, observation_size, action_size, privileged_size, settings.latent_size, make_core)
        self.encoder = hidden_layers((privileged_size, *settings.encoder_sizes, settings.latent_size))

    def encode(self, privileged: Tensor) -> Tensor:
        """Return the latent [..., latent] in [-1, 1] of privileged values [..., P]."""
        return self.encoder(self.known(privileged))
