"""Stable-Baselines3's PPO in fewer calls: it draws the same numbers and takes the same steps, equal up to rounding.

What it leaves out: distribution objects, values and log-likelihoods step by step (they are computed once a rollout),
and the statistics of episodes, which metarl keeps itself. Stable-Baselines3's own PPO is what it is tested against.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.arithmetic import subnormals_kept
from metarl.agents.sb3.device_ppo import METRICS, Minibatch
from metarl.agents.sb3.gradient import fill_gradients, means_of, values_of
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.threads import single_torch_thread

WORTH_A_THREAD = 1e7
"""Multiplications of a pass of a minibatch through actor and critic from which two threads take less time than one."""


class Cut(NamedTuple):
    """An episode that the time limit ended."""

    step: int
    """Step of the rollout."""
    env: int
    """Index of its env."""
    observation: np.ndarray
    """Its last observation, as the policy reads it, [obs]."""


class LeanBuffer(RolloutBuffer):
    """A rollout buffer whose minibatches torch gathers, in two thirds of NumPy's time."""

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> RolloutBufferSamples:
        chosen = torch.from_numpy(batch_inds)
        kept = self.observations, self.actions, self.values, self.log_probs, self.advantages, self.returns
        gathered = [torch.from_numpy(values).index_select(0, chosen).to(self.device) for values in kept]
        return RolloutBufferSamples(*gathered[:2], *(values.flatten() for values in gathered[2:]))


class LeanPpo(PPO):
    """PPO of Gaussian actions, with separate networks of actor and critic, as `metarl.agents.sb3.ppo.Ppo` builds it."""

    settings: PpoSettings
    """Settings of the update."""

    @torch.no_grad()
    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Take the steps of a rollout and store them; returns False if the callback stops it."""
        policy, buffer = self.policy, rollout_buffer
        policy.set_training_mode(False)
        buffer.reset()
        callback.on_rollout_start()
        std, low, high = policy.log_std.exp(), self.action_space.low, self.action_space.high  # pyright: ignore
        means, cuts, dones = np.zeros_like(buffer.actions), [], self._last_episode_starts
        for t in range(n_rollout_steps):
            buffer.observations[t], buffer.episode_starts[t] = self._last_obs, dones
            mean = means_of(policy, self._seen(buffer.observations[t]))
            actions = (mean + std * torch.randn_like(mean)).cpu().numpy()
            means[t], buffer.actions[t] = mean.cpu().numpy(), actions
            seen, buffer.rewards[t], dones, infos = env.step(np.clip(actions, low, high))
            self._last_obs = seen  # pyright: ignore[reportAttributeAccessIssue]
            self.num_timesteps += env.num_envs
            if not callback.on_step():
                return False
            cuts += [
                Cut(t, int(i), infos[i]["terminal_observation"]) for i in np.flatnonzero(dones) if _is_cut(infos[i])
            ]
        self._last_episode_starts = dones
        self._evaluate(buffer, means, cuts)
        last = values_of(policy, self._seen(self._last_obs))  # pyright: ignore[reportArgumentType]
        buffer.compute_returns_and_advantage(last, dones)  # pyright: ignore[reportArgumentType]
        callback.on_rollout_end()
        return True

    def _seen(self, observations: np.ndarray) -> Tensor:
        return torch.from_numpy(observations).clone().to(self.device)  # in torch's memory, see `tanh.of_array`

    def _evaluate(self, buffer: RolloutBuffer, means: np.ndarray, cuts: list[Cut]) -> None:
        """Complete the steps of a rollout, [T, S] each, by values and log-likelihoods.

        At a time limit the reward includes the discounted value of the last observation.
        """
        shape, policy = buffer.rewards.shape, self.policy
        seen = self._seen(buffer.observations.reshape(-1, *buffer.obs_shape))
        buffer.values[...] = values_of(policy, seen).view(shape).cpu().numpy()
        mean, actions = (torch.from_numpy(x) for x in (means, buffer.actions))
        buffer.log_probs[...] = numerics.gaussian_log_prob(mean, policy.log_std.cpu(), actions).numpy()
        if cuts:
            values = values_of(policy, self._seen(np.stack([cut.observation for cut in cuts])))
            places = [cut.step for cut in cuts], [cut.env for cut in cuts]
            buffer.rewards[places] += self.gamma * values.cpu().numpy()
        buffer.pos, buffer.full = len(means), True

    def train(self) -> None:
        """Take PPO's passes over the rollout; the logger gets the metrics that Stable-Baselines3 logs."""
        policy, optimiser, limit = self.policy, self.policy.optimizer, self.target_kl
        policy.set_training_mode(True)
        self._update_learning_rate(optimiser)
        parameters, passes = list(policy.parameters()), list[list[dict[str, Tensor]]]()
        stopped = False
        with self._critic_thread() as critic_thread:
            while len(passes) < self.n_epochs and not stopped:
                passes.append([])
                for samples in self.rollout_buffer.get(self.batch_size):
                    minibatch = Minibatch(*samples[:6])
                    _, metrics = fill_gradients(policy, minibatch, self.settings, critic_thread)
                    passes[-1].append(metrics)
                    stopped = limit is not None and float(metrics["approx_kl"]) > 1.5 * limit
                    if stopped:
                        break
                    torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                    optimiser.step()
                self._n_updates += 1
        self._log(passes)

    @contextlib.contextmanager
    def _critic_thread(self) -> Iterator[Executor | None]:
        """A thread for the critic where torch has several; None where they would wait for each other too long."""
        work = self.batch_size * sum(parameter.numel() for parameter in self.policy.parameters())
        if self.device.type != "cpu" or torch.get_num_threads() == 1 or work < WORTH_A_THREAD:
            yield None
            return
        with (
            single_torch_thread(),
            ThreadPoolExecutor(1, initializer=torch.set_flush_denormal, initargs=(not subnormals_kept(),)) as thread,
        ):
            yield thread

    def _log(self, passes: list[list[dict[str, Tensor]]]) -> None:
        """Log the mean of each metric over the update, but the last loss and the divergence of the last pass."""
        over = {name: [minibatch for one in passes for minibatch in one] for name in METRICS}
        over |= {"approx_kl": passes[-1], "loss": passes[-1][-1:]}
        logged = {name: float(torch.stack([m[name] for m in minibatches]).mean()) for name, minibatches in over.items()}
        buffer = self.rollout_buffer
        logged["explained_variance"] = float(explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
        logged["std"] = float(self.policy.log_std.detach().exp().mean())
        for name, value in logged.items():
            self.logger.record(f"train/{name}", value)


def _is_cut(info: dict) -> bool:
    return info.get("TimeLimit.truncated", False)
