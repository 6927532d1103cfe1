"""PPO of Stable-Baselines3 as a baseline: one policy for all tasks, and what fine-tuning makes of it on a new one.

Multi-task pretraining followed by fine-tuning is what meta-learning has to beat (Mandi 2022, Zhao 2022). One run
serves three baselines, by `adaptation`: domain randomisation, fine-tuning, and training from scratch.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.agent import Deployable, Facts, Reading, Rollout
from metarl.agents.learning import NOTHING_TOLD, DeviceEnv, Trainer, World
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.sb3.device_ppo import DevicePpo
from metarl.agents.sb3.lean_ppo import LeanBuffer, LeanPpo
from metarl.agents.sb3.learner import (
    EPSILON,
    Sb3Agent,
    Standardise,
    as_moments,
    global_randomness,
)
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.sb3.tuned import PpoBelief, Tuned, actor, expanded, of_task, stacked

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


class ShotBuffer:
    """The B steps of one task's shot, which Stable-Baselines3's PPO reads as a rollout buffer."""

    def __init__(self, samples: RolloutBufferSamples, minibatches: int, generator: torch.Generator) -> None:
        self.samples = samples
        self.values, self.returns = samples.old_values.cpu().numpy(), samples.returns.cpu().numpy()
        self._minibatches, self._generator = minibatches, generator

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:
        """Yield the steps in minibatches, in an order drawn from the buffer's generator."""
        order = torch.randperm(len(self.values), generator=self._generator)
        for chosen in order.tensor_split(min(self._minibatches, max(len(order) // 2, 1))):
            yield RolloutBufferSamples(*(x[chosen] for x in self.samples[:6]))


class AsymmetricExtractor(MlpExtractor):
    """Layers of actor and critic where the actor reads the first components of the inputs alone."""

    def __init__(self, seen: int, critic: MlpExtractor, actor: MlpExtractor) -> None:
        """seen: number of components that the actor reads. critic, actor: whose layers are taken."""
        nn.Module.__init__(self)
        self.seen = seen
        self.policy_net, self.latent_dim_pi = actor.policy_net, actor.latent_dim_pi
        self.value_net, self.latent_dim_vf = critic.value_net, critic.latent_dim_vf

    def forward_actor(self, features: Tensor) -> Tensor:
        return self.policy_net(features[..., : self.seen])


class AsymmetricPolicy(ActorCriticPolicy):
    """Actor and critic where the actor reads the first `seen` components of the inputs alone."""

    def __init__(self, *arguments: Any, seen: int, **options: Any) -> None:
        self._seen = seen
        super().__init__(*arguments, **options)

    def _build_mlp_extractor(self) -> None:
        made = [MlpExtractor(size, self.net_arch, self.activation_fn) for size in (self.features_dim, self._seen)]
        self.mlp_extractor = AsymmetricExtractor(self._seen, *made).to(self.device)


class Ppo(Sb3Agent):
    """PPO behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    settings: PpoSettings
    name = "ppo"

    @property
    def facts(self) -> Facts:
        adapts = self.settings.adaptation != "none"
        return Facts(adapts=adapts, needs_own_noise=adapts, informed=self.settings.privileged_critic)

    def __init__(
        self,
        settings: PpoSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
        privileged: Sequence[str] = (),
    ) -> None:
        """privileged: names of the privileged values. ValueError if the critic is to read them where it cannot."""
        self.told = len(privileged) if settings.privileged_critic else 0
        if settings.privileged_critic and settings.adaptation != "none":
            raise ValueError(
                "privileged_critic: outside of a simulator nobody knows what this critic reads, and adaptation "
                f"{settings.adaptation} needs a critic; set adaptation to none, or train without privileged_critic"
            )
        options = {
            "net_arch": list(settings.hidden_sizes),
            "activation_fn": ACTIVATIONS[settings.activation],
            "optimizer_kwargs": {"eps": 1e-5, "fused": device.type == "cpu"},  # eps: that of Stable-Baselines3
        }
        policy = ActorCriticPolicy
        if self.told:
            policy, options["seen"] = AsymmetricPolicy, observation_size
        sizes = observation_size, observation_size + self.told, action_size
        super().__init__(LeanPpo, policy, settings, *sizes, options, generator, device, ranks)
        self.model.settings = settings
        self._untrained = copy.deepcopy(self.model.policy)
        self._on_device: DevicePpo | None = None

    def steps_between(self, steps: int) -> int:
        return min(self.settings.steps, steps)

    def trainer(self, world: World) -> Trainer:
        """Learn where the tasks are simulated: on this agent's device, or through Stable-Baselines3's VecEnv."""
        if self.settings.privileged_critic and not self.told:
            raise ValueError(NOTHING_TOLD)
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
            moments = self.input_moments, self.return_moments
            sizes = self.observation_size + self.told, self.action_size
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
        return LeanBuffer(steps, *spaces, self.device, s.gae_lambda, s.discount, num_envs)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> PpoBelief:
        """Return the belief of tasks that all act by the trained policy, or by the untrained one to learn anew."""
        if self.settings.adaptation == "none":
            return PpoBelief()
        return PpoBelief(0, expanded(stacked([self._first()]), num_tasks))

    def inform(self, belief: PpoBelief, privileged: Tensor) -> PpoBelief:
        """Return the belief as it is: the policy is told nothing."""
        return belief

    @torch.no_grad()
    def act(self, belief: PpoBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, PpoBelief]:
        """Means plus noise times standard deviation, [M, N, act]."""
        means, log_std = self._distribution(belief, observations)
        return means if noise is None else means + log_std.exp() * noise.to(self.device), belief

    def _distribution(self, belief: PpoBelief, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return means [M, B, act] and log_std [M or 1, 1, act] for observations [M, B, obs]."""
        if not belief.shots:
            first = self._first()
            return actor(first.policy)(self._standardise(observations, first.inputs)), first.policy.log_std[None, None]
        actors, activate = belief.actors, ACTIVATIONS[self.settings.activation]()
        x = self._standardise(observations, actors)
        for k, (weights, biases) in enumerate(actors.layers):
            x = torch.baddbmm(biases, activate(x) if k else x, weights)
        return x, actors.log_std

    def observe(self, belief: PpoBelief, rewards: Tensor, ended: Tensor) -> PpoBelief:
        return belief

    def revive(self, belief: PpoBelief, fallen: Tensor) -> PpoBelief:
        return belief

    def adapt(self, belief: PpoBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> PpoBelief:
        """Take PPO's steps on the shot, for each task apart; none for domain randomisation."""
        if self.settings.adaptation == "none":
            return belief
        shot = rollout.to(torch.device("cpu"))  # the normalisers are NumPy's, and are given whole shots
        tuned = [self._tune(belief, m, shot.slice_tasks(slice(m, m + 1))) for m in range(shot.rewards.shape[1])]
        return PpoBelief(belief.shots + 1, stacked(tuned))

    def forget(self, belief: PpoBelief, begun: PpoBelief) -> PpoBelief:
        """Return the belief that every task has the first policy."""
        return begun

    @torch.no_grad()
    def read(self, belief: PpoBelief, rollout: Rollout) -> Reading:
        rollout = rollout.to(self.device)
        flat = rollout.observations.transpose(0, 1).flatten(1, 2)  # [M, T N, obs]
        means, log_std = self._distribution(belief, flat)
        steps, m, n = rollout.rewards.shape
        means = means.view(m, steps, n, -1).transpose(0, 1)
        log_std = log_std.expand(m, 1, -1)
        entropies = numerics.gaussian_entropy(log_std).expand(steps, m, n)
        return Reading(belief, numerics.gaussian_log_prob(means, log_std, rollout.actions), entropies, means)

    def deployable(self, belief: PpoBelief) -> Deployable:
        """Return the mean of the policy at the belief."""
        own = self._own(belief)
        moments = own.inputs if self.settings.normalise_input else None
        module = nn.Sequential(Standardise(moments, self.observation_size), copy.deepcopy(actor(own.policy)).cpu())
        return Deployable(module, {"observation": torch.zeros(1, self.observation_size)}, ("action",))

    def observation_moments(self, belief: PpoBelief) -> Moments | None:
        """Return the moments of what the policy learned from: of its own data if it was trained from scratch."""
        return as_moments(self._own(belief).inputs, self.observation_size) if self.settings.normalise_input else None

    def _first(self) -> Tuned:
        """Return what acts before any shot."""
        if self.settings.adaptation == "scratch":
            return Tuned(self._untrained, RunningMeanStd(shape=self.input_moments.mean.shape), RunningMeanStd(shape=()))
        return Tuned(self.model.policy, self.input_moments, self.return_moments)

    def _own(self, belief: PpoBelief) -> Tuned:
        """Return the policy at a belief about one task."""
        return of_task(belief.tuned, 0, self._untrained) if belief.shots else self._first()

    def _tune(self, belief: PpoBelief, task: int, rollout: Rollout) -> Tuned:
        """Return the policy after PPO's passes over the shot of one task, [T, 1, N, ...]."""
        s = self.settings
        tuned = of_task(belief.tuned, task, self._untrained)
        collected_by = copy.deepcopy(tuned.inputs)
        chosen = rollout.valid.flatten()
        if not chosen.any():  # every simulation broke down
            return tuned
        if s.adaptation == "scratch":  # nobody has seen this task, or any: the normalisers learn from it too
            tuned.inputs.update(rollout.observations.flatten(0, 2)[chosen].numpy().astype(np.float64))
            tuned.returns.update(self._returns(rollout).flatten()[chosen].numpy().astype(np.float64))
        generator = torch.Generator().manual_seed(belief.shots)  # the same order of minibatches for every task
        tuner = copy.copy(self.model)  # of the algorithm, its settings only: shards adapt in threads of their own
        tuner.policy, tuner.n_epochs, tuner._n_updates = tuned.policy, s.adaptation_epochs, 0
        tuner.rollout_buffer = ShotBuffer(
            self._samples(tuned, collected_by, rollout), s.adaptation_minibatches, generator
        )
        tuner.lr_schedule = FloatSchedule(s.adaptation_lr)
        tuner.set_logger(Logger(folder=None, output_formats=[]))
        tuner.train()
        tuned.policy.set_training_mode(False)
        return tuned

    def _returns(self, rollout: Rollout) -> Tensor:
        ended = rollout.terminated | rollout.truncated | ~rollout.valid
        return numerics.discounted_returns(rollout.rewards, ended, self.settings.discount)

    @torch.no_grad()
    def _samples(self, tuned: Tuned, inputs: RunningMeanStd, rollout: Rollout) -> RolloutBufferSamples:
        """Return the steps that were taken, with advantages; the value at a time limit is bootstrapped, as SB3 does.

        inputs: normaliser of the policy that took them.
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
        seen = self._standardise(rollout.observations.flatten(0, 2)[chosen], inputs)
        _, likelihoods, _ = policy.evaluate_actions(seen, actions.to(self.device))
        taken, expected = advantages.flatten()[chosen], values.flatten()[chosen]
        samples = (observations, actions, expected, likelihoods, taken, expected + taken)
        return RolloutBufferSamples(*(x.to(self.device) for x in samples))
