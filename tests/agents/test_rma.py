"""Teachers and students: RMA, its one-stage form, and the concurrent estimator."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from metarl.agents.agent import TEACHER, Rollout, Trial
from metarl.agents.estimator.estimator import Estimator, chosen_places
from metarl.agents.estimator.settings import EstimatorSettings
from metarl.agents.rma.rma import Rma
from metarl.agents.rma.settings import RmaSettings
from metarl.agents.teacher.learner import regression
from metarl.agents.trial_ppo.sequence import PRIVILEGED
from metarl.cli import app as cli
from metarl.runs.run import load_run
from metarl.runs.tracking import read_metrics

CPU = torch.device("cpu")
SMALL = {"hidden_size": 8, "head_sizes": (8,), "observation_embedding": 8, "minibatches": 2, "epochs": 2}
TINY = ("training.tasks=2", "training.envs_per_task=2", "training.threads=1", "family.horizon=10")
TINY += ("evaluation.tasks=2", "evaluation.envs_per_task=2", "evaluation.seeds=1", "evaluation.bootstrap_samples=20")
NAMES = ("task_gain", "contact")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def rma(seed: int = 0, **settings) -> Rma:
    given = {**SMALL, "memory": "history", "history_length": 4, "encoder_sizes": (8,), "latent_size": 3, **settings}
    return Rma(RmaSettings(**given), 2, 1, generator(seed), CPU, privileged=NAMES)


def trial(agent: Rma | Estimator, seed: int, offset: float = 0.0, tasks: int = 4, shots: int = 2) -> Trial:
    """Random trials whose observations have this mean."""
    rollouts = []
    for shot in range(shots):
        shape, key = (6, tasks, 2), 100 * seed + 10 * shot
        valid = torch.ones(shape, dtype=torch.bool)
        ended = torch.zeros(shape, dtype=torch.bool)
        rollouts.append(
            Rollout(
                observations=draw(*shape, 2, seed=key) + offset,
                actions=draw(*shape, 1, seed=key + 1),
                rewards=draw(*shape, seed=key + 2),
                terminated=ended,
                truncated=ended,
                valid=valid,
                final_observations=draw(tasks, 2, 2, seed=key + 3) + offset,
                privileged=draw(*shape, 2, seed=key + 4),
            )
        )
    return Trial(rollouts, [agent.begin(tasks, 2, ())] * shots)


def parameters(modules) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in modules]


def same(first: list[Tensor], second: list[Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


class TestWhoLearns:
    def test_the_stages_of_rma_and_of_roa(self):
        agent, other = rma(stages="rma", teacher_updates=2), rma(stages="roa", study_every=3)
        played = []
        for k in range(6):
            metrics = agent.meta_update(trial(agent, k), generator()), other.meta_update(trial(other, k), generator())
            played.append(tuple(m[TEACHER] for m in metrics))
        assert [rma for rma, _ in played] == [1, 1, 0, 0, 0, 0]
        assert [roa for _, roa in played] == [1, 1, 0, 1, 1, 0]

    def test_each_stage_leaves_the_others_parameters_to_the_bit(self):
        agent = rma(stages="rma", teacher_updates=1)
        before = parameters(agent.network.teacher()), parameters(agent.network.student())
        agent.meta_update(trial(agent, 0), generator())
        taught = parameters(agent.network.teacher()), parameters(agent.network.student())
        assert not all(same(before[0], taught[0])) and all(same(before[1], taught[1]))
        agent.meta_update(trial(agent, 1), generator())
        studied = parameters(agent.network.teacher()), parameters(agent.network.student())
        assert all(same(taught[0], studied[0])) and not all(same(taught[1], studied[1]))

    def test_the_students_normaliser_is_its_own(self):
        """The teacher met observations around 5, the student others around -3."""
        agent = rma(stages="rma", teacher_updates=1)
        agent.meta_update(trial(agent, 0, offset=5.0), generator())
        teachers, students = agent.network.policy_moments, agent.network.observation_moments
        torch.testing.assert_close(teachers.mean, torch.full((2,), 5.0), rtol=0, atol=0.5)
        assert students.count == 0
        policy = copy.deepcopy(teachers.state_dict())
        agent.meta_update(trial(agent, 1, offset=-3.0), generator())
        torch.testing.assert_close(students.mean, torch.full((2,), -3.0), rtol=0, atol=0.5)
        assert all(torch.equal(policy[name], value) for name, value in teachers.state_dict().items())
        assert agent.observation_moments(agent.begin(1, 1, ())) is students


class TestWhoActs:
    @pytest.mark.parametrize("updates", [0, 1])
    def test_the_teacher_only_in_its_own_iterations_and_only_where_it_is_told(self, updates):
        agent = rma(stages="rma", teacher_updates=1)
        agent.updates = updates
        belief, seen = agent.begin(3, 2, ()), draw(3, 2, 2)
        plain, _ = agent.act(belief, seen, None)
        told = [agent.act(agent.inform(belief, draw(3, 2, 2, seed=seed)), seen, None)[0] for seed in (1, 2)]
        assert torch.equal(told[0], told[1]) == torch.equal(told[0], plain) == (updates == 1)

    def test_the_student_alone_is_deployed(self):
        agent = rma()
        belief = agent.begin(1, 1, ())
        policy = agent.deployable(belief)
        assert "privileged" not in policy.inputs and "history" in policy.inputs
        seen = draw(1, 1, 2)
        inputs = {**policy.inputs, "observation": seen[0]}
        torch.testing.assert_close(policy.module(*inputs.values())[0], agent.act(belief, seen, None)[0][0])

    def test_what_it_was_told_is_not_saved(self):
        from metarl.agents import beliefs

        agent = rma()
        belief = agent.inform(agent.begin(2, 1, ()), draw(2, 1, 2))
        assert PRIVILEGED not in beliefs.saved(belief)
        assert beliefs.load(agent, beliefs.saved(belief)).privileged is None
        joined = beliefs.join([belief, belief], torch.tensor([0, 2, 1, 3]))
        assert joined.privileged.shape == (4, 1, 2)


class TestLosses:
    def test_the_pull_rises_and_brings_the_encodings_together(self):
        agent = rma(stages="roa", pull_weight=0.4, pull_from=2, pull_updates=4)
        pulls = []
        for agent.updates in range(9):
            pulls.append(agent.pull)
        assert pulls == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
        sequence = agent.sequence(trial(agent, 0))
        loss, metrics = agent.auxiliary_loss(sequence, int(sequence.steps.sum()))
        encoded = agent.network.encode(sequence.extra[PRIVILEGED])
        inferred = agent.network.estimates(sequence.inputs, sequence.memory)
        by_hand = ((encoded - inferred) ** 2)[sequence.steps].mean()
        assert metrics["pull_distance"] == pytest.approx(by_hand.item(), rel=1e-5)
        assert loss.item() == pytest.approx(0.4 * by_hand.item(), rel=1e-5)
        loss.backward()
        assert agent.network.regressor.weight.grad is None
        assert all(parameter.grad.any() for parameter in agent.network.encoder.parameters())

    def test_the_loss_does_not_explode(self):
        """An error of 1e6 has the gradient of an error of 1, and a step is clipped like any other."""
        estimates = torch.zeros(1, 2, 1, requires_grad=True)
        targets = torch.tensor([[[1.0], [1e6]]])
        regression(estimates, targets, torch.ones(1, 2, dtype=torch.bool), 2).backward()
        torch.testing.assert_close(estimates.grad, torch.tensor([[[-0.5], [-0.5]]]))
        agent = Estimator(EstimatorSettings(**SMALL), 2, 1, generator(), CPU, privileged=NAMES)
        before, wild = parameters(agent.network.student()), trial(agent, 0)
        wild.rollouts[0].privileged[0, 0, 0] = 1e6
        wild.rollouts[0].observations[1, 0, 0] = 1e6
        metrics = agent.meta_update(wild, generator())
        assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())
        moved = max((a - b).abs().max().item() for a, b in zip(before, agent.network.student(), strict=True))
        steps = agent.settings.study_epochs * agent.settings.minibatches
        assert 0 < moved <= 1.5 * steps * agent.settings.study_lr

    def test_errors_by_the_number_of_slots_read(self):
        agent = rma()
        targets = torch.zeros(60, 2, 1)
        targets[:, 1] = 2.0
        estimates = targets.clone()
        estimates[:5] += 3.0
        estimates[5:20] += 2.0
        estimates[20:50] += 1.0
        found = agent.errors(estimates, targets, torch.ones(60, 2, dtype=torch.bool))
        assert found["student_error_1_to_5_slots"] == 3 and found["student_error_6_to_20_slots"] == 2
        assert found["student_error_21_to_50_slots"] == 1 and found["student_error_51_to_200_slots"] == 0
        assert "student_error_beyond_200_slots" not in found
        overall = ((5 * 9 + 15 * 4 + 30) / 60) ** 0.5
        assert found["student_error"] == pytest.approx(overall)
        assert found["student_error_share"] == pytest.approx(overall / 1.0)  # targets of 0 and 2 have a deviation of 1


def linear_trial(agent: Estimator, seed: int, tasks: int = 128, steps: int = 12) -> Trial:
    """o_{t+1} = p a_t + noise with actions of the standard normal distribution; p is uniform in (-1, 1), and told."""
    rng, shape = generator(seed), (steps, tasks, 1)
    gain = 2 * torch.rand(tasks, 1, generator=rng) - 1
    actions = torch.randn(*shape, 1, generator=rng)
    noise = 0.1 * torch.randn(steps + 1, tasks, 1, 1, generator=rng)
    following = gain.unsqueeze(-1) * actions
    observations = torch.cat([torch.zeros(1, tasks, 1, 1), following]) + noise
    ended = torch.zeros(shape, dtype=torch.bool)
    told = gain.expand(shape).unsqueeze(-1)
    rollout = Rollout(observations[:-1], actions, torch.zeros(shape), ended, ended, ~ended, observations[-1], told)
    return Trial([rollout], [agent.begin(tasks, 1, ())])


def test_a_student_recovers_the_parameter_of_a_linear_task():
    """After 12 steps the least squares estimate has a standard error of 0.03; the student's is below 0.1."""
    settings = EstimatorSettings(memory="lstm", hidden_size=32, study_lr=3e-3, study_epochs=4, epochs=1)
    agent = Estimator(settings, 1, 1, generator(), CPU, privileged=("gain",))
    for k in range(60):
        agent.meta_update(linear_trial(agent, k), generator(k))
    fresh = agent.sequence(linear_trial(agent, 1000))
    known = agent.network.privileged_moments
    with torch.no_grad():
        estimates = agent.network.estimates(fresh.inputs, fresh.memory) * known.std + known.mean
    errors = (estimates - fresh.extra[PRIVILEGED])[fresh.steps.all(dim=1)]
    by_step = errors.square().mean(dim=(1, 2)).sqrt()
    assert by_step[0] > 0.4  # nothing is known yet: the standard deviation is 0.58
    assert by_step[-1] < 0.1


def guess(agent: Rma, seed: int, explore: bool, told: bool) -> tuple[Trial, Tensor]:
    """Six steps of guessing p of U(-1, 1): the reward is -(a - p)^2, and the observation p with noise, but at first 0.

    Returns the trial and the mean reward of each step.
    """
    rng, tasks = generator(seed), 64
    goal = 2 * torch.rand(tasks, 1, generator=rng) - 1
    belief, columns = agent.begin(tasks, 1, ()), []
    observation, begun = torch.zeros(tasks, 1, 1), belief
    for _ in range(6):
        if told:
            belief = agent.inform(belief, goal.unsqueeze(-1))
        actions, belief = agent.act(belief, observation, torch.randn(tasks, 1, 1, generator=rng) if explore else None)
        rewards = -(actions.squeeze(-1) - goal).square()
        columns.append((observation, actions, rewards, goal.unsqueeze(-1)))
        belief = agent.observe(belief, rewards, torch.zeros_like(rewards, dtype=torch.bool))
        observation = goal.unsqueeze(-1) + 0.3 * torch.randn(tasks, 1, 1, generator=rng)
    observations, actions, rewards, goals = (torch.stack(column) for column in zip(*columns, strict=True))
    ended = torch.zeros_like(rewards, dtype=torch.bool)
    rollout = Rollout(observations, actions, rewards, ended, ended, ~ended, observation, goals)
    return Trial([rollout], [begun]), rewards.mean(dim=(1, 2))


@pytest.mark.thorough
@pytest.mark.parametrize("stages", ["rma", "roa"])
def test_a_student_acts_as_well_as_what_it_has_seen_allows(stages):
    """Without knowledge the best reward is -1/3, with five observations -0.017; the teacher's is 0."""
    settings = RmaSettings(
        stages=stages,
        **{**SMALL, "hidden_size": 16, "head_sizes": (32,), "lr": 3e-3, "epochs": 4, "initial_std": 0.2},
        teacher_updates=50,
        study_every=3,
        pull_from=20,
        pull_updates=40,
        encoder_sizes=(16,),
        latent_size=2,
        study_lr=5e-3,
    )
    agent = Rma(settings, 1, 1, generator(), CPU, privileged=("p",))
    for k in range(90):
        agent.meta_update(guess(agent, k, explore=True, told=True)[0], generator(k))
    student = guess(agent, 1000, explore=False, told=False)[1]
    assert student[0] < -0.2 and student[-1] > -0.08
    agent.updates = 0
    teacher = guess(agent, 1000, explore=False, told=True)[1]
    assert teacher.min() > -0.03


def test_the_estimator_estimates_what_it_is_asked_for():
    names = ("task_mass", "task_friction", "FR_contact", "FL_contact")
    assert chosen_places((), names) == [0, 1, 2, 3]
    assert chosen_places(("F.*_contact", "task_friction"), names) == [1, 2, 3]
    with pytest.raises(ValueError, match="estimate has 'velocity', which is no privileged value of the family; they"):
        chosen_places(("velocity",), names)


def test_what_learns_from_nothing_is_refused():
    agent = Rma(RmaSettings(**SMALL), 2, 1, generator(), CPU)
    with pytest.raises(ValueError, match="RMA learns from what only a simulator knows, and the family has neither"):
        agent.trainer(None)
    untold = trial(rma(), 0)
    untold.rollouts[1] = dataclasses.replace(untold.rollouts[1], privileged=None)
    with pytest.raises(ValueError, match="RMA learns from privileged values, and the trial has none"):
        rma().meta_update(untold, generator())


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["rma", "estimator"])
def test_a_resumed_run_has_the_metrics_of_one_that_was_not_stopped(name, tmp_path):
    small = ["agent.head_sizes=8", "agent.hidden_size=8", "training.checkpoint_every=1", "tracking.wandb=disabled"]
    small += ["agent.teacher_updates=3"] if name == "rma" else []
    common = ["train", "--runs-dir", str(tmp_path), "--agent", name, "--family", "point_goal", *TINY, *small]
    assert cli.main([*common, "--name", "whole", "training.iterations=5"]) == 0
    assert cli.main([*common, "--name", "parts", "training.iterations=2"]) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "training.iterations=5"]) == 0

    def numbers(run):
        timing = ("env_steps_per_s", "time/collect", "time/update")
        lines = [{k: v for k, v in line.items() if k not in timing} for line in read_metrics(tmp_path / run)]
        return [line for line in lines if "agent/student_error" in line or "agent/kl" in line]

    assert numbers("whole") == numbers("parts") and len(numbers("whole")) == 5


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "setting"), [("rma", "teacher_updates=2"), ("roa", "study_every=3")])
def test_a_student_that_was_never_taught_is_warned_of(name, setting, tmp_path, capsys):
    small = ["agent.head_sizes=8", "agent.hidden_size=8", f"agent.{setting}", "tracking.wandb=disabled"]
    common = ["train", "--runs-dir", str(tmp_path), "--agent", name, "--family", "point_goal", *TINY, *small]
    assert cli.main([*common, "--name", "early", "training.iterations=2"]) == 0
    said = f"it learns from iteration 3 on (agent.{setting}); training.iterations has 2, so that it knows nothing"
    assert said in capsys.readouterr().err
    load_run(tmp_path / "early")
    assert "warning: outside of training RMA's student acts" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(tmp_path / "early"), "training.iterations=3"]) == 0
    load_run(tmp_path / "early")
    assert "knows nothing" not in capsys.readouterr().err
