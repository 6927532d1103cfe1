"""How torch rounds while an agent learns, and that it does not stay so."""

from __future__ import annotations

import pytest
import torch

import metarl
from metarl.agents.arithmetic import SUBNORMAL, matmul_precision, subnormals, subnormals_kept
from metarl.agents.pearl.pearl import Pearl
from metarl.agents.pearl.sac import SoftActorCritic
from metarl.agents.pearl.settings import PearlSettings
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.training.players import TrialPlayer

AGENT = PearlSettings(hidden_sizes=(8,), encoder_sizes=(8,), updates_per_step=0.05, action_bound=0.1)
EVALUATION = EvaluationSettings(tasks=2, envs_per_task=1, seeds=(1,), adaptations=0, bootstrap_samples=20)


def now() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), subnormals_kept()


@pytest.fixture
def met(monkeypatch) -> dict[str, set[tuple[str, bool]]]:
    """How torch rounded in each of the methods that a run calls."""
    found: dict[str, set[tuple[str, bool]]] = {}

    def watch(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def called(self, *args, **given):
            found.setdefault(name, set()).add(now())
            return method(self, *args, **given)

        monkeypatch.setattr(owner, name, called)

    watch(SoftActorCritic, "step")
    watch(TrialPlayer, "play")
    watch(Pearl, "act")
    return found


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_an_agent_learns_with_the_precision_asked_for_and_without_subnormals(precision, met, tmp_path):
    """Simulations and evaluation keep them, and evaluation multiplies in float32 whatever training did."""
    training = TrainingSettings(
        iterations=2, tasks=2, envs_per_task=1, adaptations=1, threads=1, matmul_precision=precision
    )
    config = RunConfig(AGENT, PointGoalSettings(horizon=12), training, EVALUATION, TrackingSettings(wandb="disabled"))
    metarl.train(config, "run", tmp_path)
    assert met == {"step": {(precision, False)}, "play": {(precision, True)}, "act": {(precision, True), now()}}
    assert now() == ("highest", True)


def test_both_are_as_before_after_an_error():
    def fail() -> None:
        with matmul_precision("medium"), subnormals(kept=False):
            assert now() == ("medium", False)
            with subnormals(kept=True):
                assert torch.tensor(SUBNORMAL) / 2 > 0
            assert torch.tensor(SUBNORMAL) / 2 == 0
            raise ValueError

    with pytest.raises(ValueError, match="^$"):
        fail()
    assert now() == ("highest", True)
