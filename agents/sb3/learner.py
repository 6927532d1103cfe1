"""The base class of the agents of Stable-Baselines3: its model, normalisers and randomness."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from metarl.agents.agent import Belief
from metarl.agents.learning import SlotMaker, Trainer, World
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.ranks import Ranks
from metarl.agents.sb3.settings import Sb3Settings
from metarl.agents.step_sizes import falling

EPSILON = 1e-8
"""VecNormalize's epsilon."""
LOGGED = ("approx_kl", "clip_fraction", "entropy_loss", "explained_variance", "loss", "policy_gradient_loss", "std")
LOGGED += ("value_loss",)
"""Metrics of an update that Stable-Baselines3 logs."""


@contextlib.contextmanager
def global_randomness(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's and NumPy's global generators, from which Stable-Baselines3 draws, and restore them afterwards."""
    seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def standardise(values: Tensor, moments: Any) -> Tensor:
    """Standardise observations [..., size] as VecNormalize does.

    moments: anything with `mean` and `var` of so many components or more; those behind are not used.
    """
    size = values.shape[-1]
    mean, variance = (torch.as_tensor(x, device=values.device)[..., :size] for x in (moments.mean, moments.var))
    return ((values - mean) / (variance + EPSILON).sqrt()).clamp(-INPUT_CLIP, INPUT_CLIP).float()


def moments_state(moments: RunningMeanStd) -> dict[str, Any]:
    """Return the moments as plain types and tensors."""
    return {"mean": torch.tensor(moments.mean), "var": torch.tensor(moments.var), "count": float(moments.count)}


def load_moments(moments: RunningMeanStd, state: dict[str, Any]) -> None:
    """Restore what `moments_state` returned; ValueError if the size differs."""
    if state["mean"].shape != np.shape(moments.mean):
        raise ValueError(
            f"the normaliser is of size {tuple(state['mean'].shape)}, this agent reads {np.shape(moments.mean)}; "
            "build the agent with the family that it was saved with"
        )
    moments.mean, moments.var, moments.count = state["mean"].numpy(), state["var"].numpy(), state["count"]


def as_moments(moments: RunningMeanStd, size: int) -> Moments:
    """Return the moments of the first `size` components."""
    ours = Moments(size)
    ours.count.fill_(float(moments.count))
    ours.mean.copy_(torch.as_tensor(moments.mean[:size]))
    ours.variance.copy_(torch.as_tensor(moments.var[:size]))
    return ours


class Standardise(nn.Module):
    """`standardise` as a module, with the current statistics; the identity if there are none."""

    def __init__(self, moments: RunningMeanStd | None, size: int | None = None) -> None:
        """size: number of components that are read; None: all."""
        super().__init__()
        self.mean = self.scale = None
        if moments is not None:
            self.mean = torch.tensor(moments.mean[:size], dtype=torch.float32)
            self.scale = torch.tensor(np.sqrt(moments.var[:size] + EPSILON), dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.mean is None or self.scale is None:
            return inputs
        return ((inputs - self.mean) / self.scale).clamp(-INPUT_CLIP, INPUT_CLIP)


class Collecting(BaseCallback):
    """Enters a context for the time of each rollout: see `World.collecting`."""

    def __init__(self, collecting: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._collecting, self._rollout = collecting, contextlib.ExitStack()

    def _on_rollout_start(self) -> None:
        self._rollout.enter_context(self._collecting())

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._rollout.close()


class Sb3Agent:
    """The learning half of an agent: a model of Stable-Baselines3 that is given an env when it learns."""

    name: str
    """The agent's name in the registry."""
    slot_maker: SlotMaker | None = None
    """Makes the observations of an env whose episode is a whole trial; None: an episode of the env is one episode."""

    def __init__(
        self,
        algorithm: type[OnPolicyAlgorithm],
        policy: type[ActorCriticPolicy],
        settings: Sb3Settings,
        observation_size: int,
        input_size: int,
        action_size: int,
        policy_options: dict[str, Any],
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        if ranks.size > 1:
            raise ValueError(
                f"{self.name} is Stable-Baselines3's and learns in one process, not in {ranks.size}; train it without "
                "torchrun, or choose maml or rl2"
            )
        s = self.settings = settings
        self.device = device
        self.observation_size, self.action_size = observation_size, action_size
        self.updates = 0
        """Number of training iterations taken."""
        self.input_moments, self.return_moments = RunningMeanStd(shape=(input_size,)), RunningMeanStd(shape=())
        options = {
            "learning_rate": s.lr,
            "n_epochs": s.epochs,
            "gamma": s.discount,
            "gae_lambda": s.gae_lambda,
            "clip_range": s.clip,
            "target_kl": s.target_kl or None,
            "ent_coef": s.entropy_weight,
            "vf_coef": s.value_weight,
            "max_grad_norm": s.max_gradient_norm,
            "policy_kwargs": {"log_std_init": math.log(s.initial_std), **policy_options},
        }
        self.model: Any = algorithm(policy, None, device=device, _init_setup_model=False, **options)  # pyright: ignore
        self.model.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (input_size,), np.float32)
        self.model.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
        self.model.n_envs = 1
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        with global_randomness(generator):
            self.model._setup_model()

    def trainer(self, world: World) -> Trainer:
        """Let Stable-Baselines3 step the world's VecEnv."""
        env, steps = world.vec_env(self.slot_maker)
        return lambda generator: self.learn(env, steps, generator, world.collecting)

    def learn(
        self,
        env: VecEnv,
        steps: int,
        generator: torch.Generator,
        collecting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> dict[str, float]:
        """Reset the envs and step each at least `steps` times, with updates in between; returns metrics by name.

        collecting: the context in which rollouts are collected.
        """
        model = self.model
        between = self.steps_between(steps)
        if model.env is None or model.env.unwrapped is not env or model.n_steps != between:
            self.take_up(env, between)
        lr = self._lr()
        model.lr_schedule = FloatSchedule(lr)
        model._last_obs = None  # it resets the env: what an iteration computes follows from its tasks and its generator
        total = -(-steps // between) * between * env.num_envs
        watch = Collecting(collecting)
        with global_randomness(generator):
            model.learn(total, watch, log_interval=None, reset_num_timesteps=False)  # pyright: ignore[reportArgumentType]
        self.updates += 1
        logged = {k.removeprefix("train/"): v for k, v in model.logger.name_to_value.items() if k.startswith("train/")}
        metrics = {name: float(logged[name]) for name in LOGGED if name in logged}
        return metrics | {"lr": lr}

    def _lr(self) -> float:
        """Return Adam's step size in the current iteration."""
        s = self.settings
        return falling(s.lr, s.lr_end, self.updates, s.lr_decay_updates)

    def steps_between(self, steps: int) -> int:
        """Return the steps of every env between two updates; steps: their number in an iteration."""
        raise NotImplementedError

    def take_up(self, env: VecEnv, between: int) -> None:
        """Learn from this env from now on, with an update every `between` steps of it."""
        model, s = self.model, self.settings
        wrapped = VecNormalize(env, True, s.normalise_input, s.normalise_reward, INPUT_CLIP, INPUT_CLIP, s.discount)
        wrapped.obs_rms, wrapped.ret_rms = self.input_moments, self.return_moments
        model.action_space, model.n_envs, model.n_steps = env.action_space, env.num_envs, between
        model.set_env(wrapped)
        model.batch_size = max(2, -(-between * env.num_envs // s.minibatches))  # pyright: ignore[reportAttributeAccessIssue]
        model.rollout_buffer = self.make_buffer(between, env.num_envs)

    def make_buffer(self, steps: int, num_envs: int) -> RolloutBuffer:
        """Return a rollout buffer for this many steps of this many envs."""
        raise NotImplementedError

    def _standardise(self, inputs: Tensor, moments: Any = None) -> Tensor:
        """Standardise a policy's inputs [..., input]; moments: its own, or None for those of training."""
        inputs = inputs.to(self.device)
        if not self.settings.normalise_input:
            return inputs
        return standardise(inputs, self.input_moments if moments is None else moments)

    def observation_moments(self, belief: Belief) -> Moments | None:
        """Return the moments of the observations of training; None if observations are not standardised."""
        return as_moments(self.input_moments, self.observation_size) if self.settings.normalise_input else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that training continues from, as plain types and tensors."""
        state = {"policy": self.model.policy.state_dict(), "optimiser": self.model.policy.optimizer.state_dict()}
        moments = {"input": moments_state(self.input_moments), "return": moments_state(self.return_moments)}
        counters = {"updates": self.updates, "num_timesteps": self.model.num_timesteps}
        return copy.deepcopy(state) | {"moments": moments} | counters

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError if the shapes differ."""
        policy = self.model.policy
        require_same_shapes(policy.state_dict(), state["policy"])
        load_moments(self.input_moments, state["moments"]["input"])
        load_moments(self.return_moments, state["moments"]["return"])
        policy.load_state_dict(state["policy"])
        policy.optimizer.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.updates, self.model.num_timesteps = state["updates"], state["num_timesteps"]


def require_same_shapes(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Raise ValueError, with the difference, unless a saved network has the shapes of this one."""
    for name in ours.keys() | theirs.keys():
        here, there = (tuple(x[name].shape) if name in x else "nothing" for x in (ours, theirs))
        if here != there:
            raise ValueError(
                f"this state does not fit: {name} is {here} here and {there} in the state; build the agent with the "
                "settings and the family that it was saved with"
            )
