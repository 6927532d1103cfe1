"""PPO of Stable-Baselines3 as a baseline: one policy for all tasks, and what fine-tuning makes of it on a new one.

Multi-task pretraining followed by fine-tuning is what meta-learning has to beat (Mandi 2022, Zhao 2022). One run
serves three baselines, by `adaptation`: domain randomisation, fine-tuning, and training from scratch.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.agent import Deployable, Facts, Reading, Rollout
from metarl.agents.learning import DeviceEnv, Trainer, World
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.sb3.device_ppo import DevicePpo
from metarl.agents.sb3.learner import (
    EPSILON,
    Sb3Agent,
    Standardise,
    as_moments,
    global_randomness,
    load_moments,
    moments_state,
    require_same_shapes,
)
from metarl.agents.sb3.settings import PpoSettings

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


@dataclass(frozen=True)
class Tuned:
    """A policy that PPO has taken steps with on one task, and the normalisers that it reads and learns by."""

    policy: ActorCriticPolicy
    """With its optimiser."""
    inputs: RunningMeanStd
    returns: RunningMeanStd


@dataclass(frozen=True)
class Stack:
    """The actors of M tuned policies as one: log_std [M, 1, act], mean and var of the normalisers [M, 1, obs]."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    """Weights [M, in, out] and biases [M, 1, out]."""
    log_std: Tensor
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class PpoBelief:
    """The policy of each task."""

    num_tasks: int
    tuned: tuple[Tuned, ...] = ()
    """One a task; empty where all still act by the same policy."""
    stack: Stack | None = None
    shots: int = 0
    """Shots that were learned from."""


class Shot:
    """The data of one task's shot as SB3's PPO reads a rollout buffer. B steps."""

    def __init__(self, samples: RolloutBufferSamples, minibatches: int, generator: torch.Generator) -> None:
        self.samples = samples
        self.values, self.returns = samples.old_values.cpu().numpy(), samples.returns.cpu().numpy()
        self._minibatches, self._generator = minibatches, generator

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:
        """A pass in minibatches, in an order of the shot's own: PPO's buffer draws from NumPy's global generator."""
        order = torch.randperm(len(self.values), generator=self._generator)
        for chosen in order.tensor_split(min(self._minibatches, max(len(order) // 2, 1))):
            yield RolloutBufferSamples(*(x[chosen] for x in self.samples[:6]))


class Ppo(Sb3Agent):
    """PPO behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    settings: PpoSettings
    name = "ppo"

    @property
    def facts(self) -> Facts:
        adapts = self.settings.adaptation != "none"
        return Facts(adapts=adapts, needs_own_noise=adapts)

    def __init__(
        self,
        settings: PpoSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        options = {
            "net_arch": list(settings.hidden_sizes),
            "activation_fn": ACTIVATIONS[settings.activation],
        }
        sizes = observation_size, observation_size, action_size
        super().__init__(PPO, ActorCriticPolicy, settings, *sizes, options, generator, device, ranks)
        self._untrained = copy.deepcopy(self.model.policy)
        self._on_device: DevicePpo | None = None

    def steps_between(self, steps: int) -> int:
        return min(self.settings.steps, steps)

    def trainer(self, world: World) -> Trainer:
        """Learn where the tasks are simulated: on this agent's device, or through Stable-Baselines3's VecEnv."""
        if not world.on_device:
            return super().trainer(world)
        env, steps = world.device_env()
        return lambda generator: self.learn_on_device(env, steps, generator, world.collecting)

    def learn_on_device(
        self,
        env: DeviceEnv,
        steps: int,
        generator: torch.Generator,
        collecting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> dict[str, float]:
        """`learn` with envs on this agent's device."""
        between = self.steps_between(steps)
        if self._on_device is None or self._on_device.env is not env or self._on_device.between != between:
            moments, sizes = (self.input_moments, self.return_moments), (self.observation_size, self.action_size)
            self._on_device = DevicePpo(self.model.policy, self.settings, *moments, env, sizes, between, self.device)
        updates, lr = -(-steps // between), self._lr()
        with global_randomness(generator):
            metrics = self._on_device.learn(updates, lr, collecting)
        self.updates += 1
        self.model.num_timesteps += updates * between * env.num_envs
        return metrics | {"lr": lr}

    def make_buffer(self, steps: int, num_envs: int) -> RolloutBuffer:
        model, s = self.model, self.settings
        spaces = (model.observation_space, model.action_space)
        return RolloutBuffer(steps, *spaces, self.device, s.gae_lambda, s.discount, num_envs)

    def begin(self, num_tasks: int, envs_per_task: int) -> PpoBelief:
        """All tasks act by the same policy: the trained one, or the untrained one to train from scratch."""
        return PpoBelief(num_tasks)

    @torch.no_grad()
    def act(self, belief: PpoBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, PpoBelief]:
        """Means plus noise times standard deviation, [M, N, act]."""
        means, log_std = self._distribution(belief, observations)
        return means if noise is None else means + log_std.exp() * noise.to(self.device), belief

    def _distribution(self, belief: PpoBelief, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Means [M, B, act] and log_std [M or 1, 1, act] for observations [M, B, obs]."""
        if (stack := belief.stack) is None:
            first = self._first()
            return actor(first.policy)(self._standardise(observations, first.inputs)), first.policy.log_std[None, None]
        x, activate = self._standardise(observations, stack), ACTIVATIONS[self.settings.activation]()
        for k, (weights, biases) in enumerate(stack.layers):
            x = torch.baddbmm(biases, activate(x) if k else x, weights)
        return x, stack.log_std

    def observe(self, belief: PpoBelief, rewards: Tensor, ended: Tensor) -> PpoBelief:
        return belief

    def adapt(self, belief: PpoBelief, rollout: Rollout) -> PpoBelief:
        """PPO steps on the shot, for each task apart; none for domain randomisation."""
        if self.settings.adaptation == "none":
            return belief
        before = belief.tuned or (self._first(),) * belief.num_tasks
        tuned = [self._tune(own, rollout.slice_tasks(slice(m, m + 1)), belief.shots) for m, own in enumerate(before)]
        return self._belief(tuned, belief.shots + 1)

    def join(self, beliefs: Sequence[PpoBelief], order: Tensor) -> PpoBelief:
        """One belief about all their tasks; order [M]: the place of each task in the sequence of theirs."""
        tuned = [own for belief in beliefs for own in belief.tuned]
        if not tuned:
            return PpoBelief(len(order))
        return self._belief([tuned[i] for i in order.tolist()], beliefs[0].shots)

    @torch.no_grad()
    def read(self, belief: PpoBelief, rollout: Rollout) -> Reading:
        rollout = rollout.to(self.device)
        flat = rollout.observations.transpose(0, 1).flatten(1, 2)  # [M, T N, obs]
        means, log_std = self._distribution(belief, flat)
        steps, m, n = rollout.rewards.shape
        means = means.view(m, steps, n, -1).transpose(0, 1)
        log_std = log_std.expand(m, 1, -1)
        entropies = numerics.gaussian_entropy(log_std).expand(steps, m, n)
        return Reading(belief, numerics.gaussian_log_prob(means, log_std, rollout.actions), entropies)

    def deployable(self, belief: PpoBelief) -> Deployable:
        """The mean of the policy at the belief."""
        own = belief.tuned[0] if belief.tuned else self._first()
        moments = own.inputs if self.settings.normalise_input else None
        module = nn.Sequential(Standardise(moments), copy.deepcopy(actor(own.policy)).cpu())
        return Deployable(module, {"observation": torch.zeros(1, self.observation_size)}, ("action",))

    def observation_moments(self, belief: PpoBelief) -> Moments | None:
        """Of the observations that the policy at a belief about one task reads by: trained from scratch, of its own."""
        own = belief.tuned[0] if belief.tuned else self._first()
        return as_moments(own.inputs, self.observation_size) if self.settings.normalise_input else None

    def belief_state(self, belief: PpoBelief) -> dict[str, Any]:
        """Policies with their optimisers and normalisers."""
        tuned = [
            {
                "policy": own.policy.state_dict(),
                "optimiser": own.policy.optimizer.state_dict(),
                "inputs": moments_state(own.inputs),
                "returns": moments_state(own.returns),
            }
            for own in belief.tuned
        ]
        return {"num_tasks": belief.num_tasks, "shots": belief.shots, "tuned": on_cpu(tuned)}

    def load_belief(self, state: dict[str, Any]) -> PpoBelief:
        """The belief that `belief_state` gave; raises ValueError if the shapes differ."""
        tuned = []
        for saved in state["tuned"]:
            own = self._copy(self._first())
            require_same_shapes(own.policy.state_dict(), saved["policy"])
            load_moments(own.inputs, saved["inputs"])
            load_moments(own.returns, saved["returns"])
            own.policy.load_state_dict(saved["policy"])
            own.policy.optimizer.load_state_dict(copy.deepcopy(saved["optimiser"]))
            tuned.append(own)
        return self._belief(tuned, state["shots"]) if tuned else PpoBelief(state["num_tasks"])

    def _first(self) -> Tuned:
        """What acts before any shot."""
        if self.settings.adaptation == "scratch":
            return Tuned(self._untrained, RunningMeanStd(shape=self.input_moments.mean.shape), RunningMeanStd(shape=()))
        return Tuned(self.model.policy, self.input_moments, self.return_moments)

    def _belief(self, tuned: Sequence[Tuned], shots: int) -> PpoBelief:
        linear = zip(*([x for x in actor(own.policy) if isinstance(x, nn.Linear)] for own in tuned), strict=True)
        layers = tuple(
            (torch.stack([x.weight.detach().T for x in own]), torch.stack([x.bias.detach() for x in own])[:, None])
            for own in linear
        )
        moments = (
            torch.stack([torch.as_tensor(getattr(o.inputs, x)) for o in tuned])[:, None] for x in ("mean", "var")
        )
        log_std = torch.stack([own.policy.log_std.detach() for own in tuned])[:, None]
        stack = Stack(layers, log_std, *moments)
        return PpoBelief(len(tuned), tuple(tuned), stack, shots)

    def _tune(self, before: Tuned, rollout: Rollout, shots: int) -> Tuned:
        """The policy after PPO's passes over one task's shot; the one before stays as it is."""
        s = self.settings
        tuned = self._copy(before)
        chosen = rollout.valid.flatten()
        if not chosen.any():  # MuJoCo flagged every simulation
            return tuned
        if s.adaptation == "scratch":  # nobody has seen this task, or any: the normalisers learn from it too
            tuned.inputs.update(rollout.observations.flatten(0, 2)[chosen].numpy().astype(np.float64))
            tuned.returns.update(self._returns(rollout).flatten()[chosen].numpy().astype(np.float64))
        generator = torch.Generator().manual_seed(shots)
        tuner = copy.copy(self.model)  # of the algorithm, its settings only: shards adapt in threads of their own
        tuner.policy, tuner.n_epochs, tuner._n_updates = tuned.policy, s.adaptation_epochs, 0
        tuner.rollout_buffer = Shot(self._samples(tuned, before, rollout), s.adaptation_minibatches, generator)
        tuner.lr_schedule = FloatSchedule(s.adaptation_lr)
        tuner.set_logger(Logger(folder=None, output_formats=[]))
        tuner.train()
        tuned.policy.set_training_mode(False)
        return tuned

    def _copy(self, tuned: Tuned) -> Tuned:
        policy = copy.deepcopy(self._untrained)  # a policy that has acted holds a distribution that cannot be copied
        policy.load_state_dict(tuned.policy.state_dict())
        optimiser = copy.deepcopy(tuned.policy.optimizer.state_dict())  # it is taken as it is, not copied
        policy.optimizer.load_state_dict(optimiser)
        return Tuned(policy, copy.deepcopy(tuned.inputs), copy.deepcopy(tuned.returns))

    def _returns(self, rollout: Rollout) -> Tensor:
        ended = rollout.terminated | rollout.truncated | ~rollout.valid
        return numerics.discounted_returns(rollout.rewards, ended, self.settings.discount)

    @torch.no_grad()
    def _samples(self, tuned: Tuned, before: Tuned, rollout: Rollout) -> RolloutBufferSamples:
        """The steps that were taken, with advantages; the value at a time limit is bootstrapped, as SB3 does.

        before: what they were taken by.
        """
        s, policy = self.settings, tuned.policy
        x, final = (self._standardise(o, tuned.inputs) for o in (rollout.observations, rollout.final_observations))
        rewards = rollout.rewards
        if s.normalise_reward:
            scale = float(np.sqrt(tuned.returns.var + EPSILON))
            rewards = (rewards / scale).clamp(-INPUT_CLIP, INPUT_CLIP)
        shape = rewards.shape
        values = policy.predict_values(x.flatten(0, 2)).view(shape).cpu()
        after = policy.predict_values(final.flatten(0, 1)).view(shape[1:]).cpu()
        ended = rollout.terminated | rollout.truncated | ~rollout.valid
        following = torch.cat([values[1:], torch.zeros_like(values[:1])]) * ~ended
        following = torch.where(rollout.truncated, after.expand(shape), following)
        advantages = numerics.gae(rewards, values, following, ended, s.discount, s.gae_lambda)
        chosen = rollout.valid.flatten()
        observations, actions = x.flatten(0, 2)[chosen], rollout.actions.flatten(0, 2)[chosen]
        seen = self._standardise(rollout.observations.flatten(0, 2)[chosen], before.inputs)
        _, likelihoods, _ = policy.evaluate_actions(seen, actions.to(self.device))
        taken, expected = advantages.flatten()[chosen], values.flatten()[chosen]
        samples = (observations, actions, expected, likelihoods, taken, expected + taken)
        return RolloutBufferSamples(*(x.to(self.device) for x in samples))


def on_cpu(state: Any) -> Any:
    """A copy of nested plain types and tensors."""
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [on_cpu(value) for value in state]
    return state.detach().cpu().clone() if isinstance(state, Tensor) else state


def actor(policy: Any) -> nn.Sequential:
    """Observation -> mean of the action."""
    return nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
