"""Networks of VariBAD: a memory that ends in a posterior, a policy that reads it, and decoders of steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.cores.core import Core, Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.tanh import tanh
from metarl.agents.trial_ppo.critic import CriticNetwork
from metarl.agents.trial_ppo.heads import make_head
from metarl.agents.trial_ppo.network import CoreMaker, hidden_layers
from metarl.agents.varibad.settings import VaribadSettings

MEAN, LOG_VARIANCE = "posterior_mean", "posterior_log_variance"
"""Names of the states that hold the posterior, each [B, latent]."""


class Encoder(Core):
    """A core and a linear layer from its features to a diagonal Gaussian over the latent variable of the task.

    Its features are mean and log-variance, [..., 2 latent]. The memory holds them too, beside the core's own states:
    the posterior after the last slot can be read from every belief. Before the first slot it is N(0, I).
    """

    name = "encoder"

    def __init__(self, core: Core, latent_size: int) -> None:
        super().__init__()
        self._core = core.name
        self.add_module(core.name, core)  # under its own name: a checkpoint says which core it holds
        self.posterior = nn.Linear(core.output_size, 2 * latent_size)
        self.output_size = 2 * latent_size

    @property
    def core(self) -> Core:
        """The memory without the posterior."""
        core = self.get_submodule(self._core)
        assert isinstance(core, Core)
        return core

    @property
    def reach(self) -> int | None:
        return self.core.reach

    def initial(self, size: int) -> Memory:
        zeros = self.posterior.weight.new_zeros(size, self.output_size // 2)
        return {**self.core.initial(size), MEAN: zeros, LOG_VARIANCE: zeros}

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        remembered, after = self.core.step(inputs, without_posterior(memory))
        features = self.posterior(remembered)
        return features, _with_posterior(after, features)

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        remembered, after = self.core.sequence(inputs, without_posterior(memory))
        features = self.posterior(remembered)
        return features, _with_posterior(after, features[-1])

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the core's parameters, and an orthogonal layer of the posterior; its biases are zero."""
        self.core.initialise(generator)
        nn.init.orthogonal_(self.posterior.weight, generator=generator)
        nn.init.zeros_(self.posterior.bias)


def without_posterior(memory: Memory) -> Memory:
    """Return the states of an encoder's core alone."""
    return {name: state for name, state in memory.items() if name not in (MEAN, LOG_VARIANCE)}


def _with_posterior(memory: Memory, features: Tensor) -> Memory:
    mean, log_variance = features.chunk(2, dim=-1)
    return {**memory, MEAN: mean, LOG_VARIANCE: log_variance}


class Decoder(nn.Module):
    """A network that reads a step and a draw of the latent variable."""

    def __init__(self, step_size: int, latent_size: int, output_size: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.of_step = nn.Linear(step_size, hidden_sizes[0])
        self.of_latent = nn.Linear(latent_size, hidden_sizes[0], bias=False)
        self.hidden = hidden_layers(hidden_sizes)
        self.output = nn.Linear(hidden_sizes[-1], output_size)

    def forward(self, steps: Tensor, latents: Tensor) -> Tensor:
        """Return predictions [E, D, B, output] for steps [D, B, step] and latents [E, B, latent], each of all steps."""
        first = self.of_step(steps) + self.of_latent(latents).unsqueeze(1)  # the first layer once a step, not E times
        return self.output(self.hidden(tanh(first)))


class VaribadNetwork(CriticNetwork):
    """Embeddings and encoder, decoders, a head for the actor as the settings choose it, and a plain one for the critic.

    Both heads read the posterior beside the observation.
    """

    def __init__(
        self, settings: VaribadSettings, observation_size: int, action_size: int, make_core: CoreMaker, told: int = 0
    ) -> None:
        """told: number of privileged values that the critic reads."""
        latent, hidden = settings.latent_size, settings.decoder_sizes

        def make_encoder(input_size: int, _: object) -> Encoder:
            return Encoder(make_core(input_size, settings), latent)

        super().__init__(settings, observation_size, action_size, make_encoder)
        self.chunk = settings.chunk
        self.change_moments = Moments(observation_size)
        seen = observation_size + action_size
        self.decode_reward = Decoder(seen + observation_size, latent, 1, hidden)
        self.decode_change = Decoder(seen, latent, observation_size, hidden) if settings.state_weight else None
        self.actor, self.mean = make_head(settings, settings.head_sizes, 2 * latent, observation_size, action_size)
        self.add_critic(2 * latent + observation_size, told, settings.head_sizes)
        self.log_std = nn.Parameter(torch.empty(action_size))

    def initialise(self, initial_std: float, generator: torch.Generator) -> None:
        super().initialise(initial_std, generator)
        self.change_moments.reset()

    def policy_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of actor and critic."""
        parts = (self.actor, self.mean, self.critic, self.value)
        return [parameter for part in parts for parameter in part.parameters()] + [self.log_std]

    def model_parameters(self) -> list[nn.Parameter]:
        """Return all others: those of embeddings, encoder and decoders."""
        policy = {id(parameter) for parameter in self.policy_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in policy]

    def posteriors(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Return mean and log-variance [L, B, 2 latent] after each of the slots [L, B, input]."""
        return self.core.truncated(self.embed(self.normalise(inputs)), memory, self.chunk)[0]

    def features(self, remembered: Tensor, normalised: Tensor) -> Tensor:
        """Return the posterior, whose scale the bound keeps near that of N(0, I), and the observation."""
        return torch.cat([remembered.clamp(-INPUT_CLIP, INPUT_CLIP), normalised[..., : self.sizes[0]]], dim=-1)

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        return self.mean(self.actor(features))
