"""PEARL's replay: what is drawn for a task is of that task, and its context is what an agent may have seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from metarl.agents.agent import Rollout, Trial
from metarl.agents.pearl.task_replay import TaskReplay
from metarl.files import write

T, M, N = 5, 3, 2


@dataclasses.dataclass
class Folder:
    """The part of a world that a replay buffer uses."""

    folder: Path

    def write(self, name, parts):
        write(self.folder / name, parts)


def trial(iteration: int, names: list[str], shots: int = 3) -> Trial:
    """A trial whose observations tell (iteration, task, shot); the second env of task 1 ends after two steps."""
    rollouts = []
    for shot in range(shots):
        flags = torch.zeros(T, M, N, dtype=torch.bool)
        valid = ~flags
        valid[2:, 1, 1] = False
        seen = torch.zeros(T, M, N, 3)
        seen[..., 0], seen[..., 1], seen[..., 2] = iteration, torch.arange(M).view(1, M, 1), shot
        rollouts.append(Rollout(seen, torch.zeros(T, M, N, 1), seen.sum(-1), flags, flags, valid, seen[-1]))
    return Trial(rollouts, [], [SimpleNamespace(id=name) for name in names])


def opened(folder: Path, capacity: int = 10, recent: int = 1) -> TaskReplay:
    replay = TaskReplay(capacity, recent)
    replay.open(Folder(folder))
    return replay


def drawn(replay: TaskReplay, updates: int = 20, seed: int = 0):
    """All tasks drawn, as one: observations to learn from and of context, [R, steps, 3]."""
    parts = list(replay.sample(updates, 16, 30, 20, torch.Generator().manual_seed(seed)))
    assert len(parts) == updates
    return [torch.cat([part[i]["observations"] for part in parts]) for i in (0, 1)]


def test_both_draws_are_of_one_task_and_all_tasks_are_drawn_alike(tmp_path):
    replay = opened(tmp_path)
    assert [replay.add(trial(i, [f"{i} {m}" for m in range(M)])) for i in range(3)] == [3 * (T * M * N - 3)] * 3
    learned, context = drawn(replay, 60)
    places = torch.cat([learned, context], 1)[..., :2]
    assert (places == places[:, :1]).all()  # (iteration, task)
    _, counts = torch.unique(places[:, 0], dim=0, return_counts=True)
    assert len(counts) == 9 and counts.min() > 60  # 107 +- 10 each
    assert learned[..., 2].unique().tolist() == [0, 1, 2]


def test_context_is_the_first_shots_of_a_trial_and_not_the_last(tmp_path):
    """Of three shots: one in half of the contexts, two in the others."""
    replay = opened(tmp_path)
    replay.add(trial(0, ["a", "b", "c"]))
    _, context = drawn(replay, 60)
    last = context[..., 2].amax(1)
    assert last.unique().tolist() == [0, 1]
    assert (last == 0).float().mean().item() == pytest.approx(0.5, abs=0.07)
    alone = opened(tmp_path)
    alone.add(trial(1, ["a", "b", "c"], shots=1))
    assert (drawn(alone)[1][..., 2] == 0).all()


def test_a_shot_that_mujoco_flagged_is_no_context(tmp_path):
    replay, played = opened(tmp_path), trial(0, ["a", "b", "c"], shots=2)
    played.rollouts[0].valid[:, 0] = False
    replay.add(played)
    _, context = drawn(replay)
    of_first = context[context[:, 0, 1] == 0]
    assert len(of_first) and (of_first[..., 2] == 1).all() and (context[context[:, 0, 1] == 1][..., 2] == 0).all()


@pytest.mark.parametrize("recent", [1, 2])
def test_a_task_that_recurs_is_one_task_with_recent_context(tmp_path, recent: int):
    """Task a is the first of iterations 0 to 2, and is drawn as often as each of the six others."""
    replay = opened(tmp_path, recent=recent)
    for i in range(3):
        replay.add(trial(i, ["a", f"b{i}", f"c{i}"]))
    learned, context = drawn(replay, 60)
    ours = learned[:, 0, 1] == 0
    assert ours.float().mean().item() == pytest.approx(1 / 7, abs=0.04)
    assert (learned[ours][..., 1] == 0).all() and (context[ours][..., 1] == 0).all()
    _, counts = torch.unique(learned[ours][..., 0], return_counts=True)
    assert len(counts) == 3 and counts.min() > 0.85 * counts.max()
    assert context[ours][..., 0].unique().tolist() == list(range(3 - recent, 3))
    assert (context[ours][..., 0] == context[ours][:, :1, 0]).all()  # of one trial


@pytest.mark.parametrize("recent", [1, 2])
def test_context_is_of_one_trial_where_a_task_has_several_in_an_iteration(tmp_path, recent: int):
    """As on half_cheetah_direction, whose two tasks are those of all trials: when it acts, an agent has seen one."""
    replay = opened(tmp_path, recent=recent)
    for i in range(3):
        replay.add(trial(i, ["a", "b", "a"]))
    learned, context = drawn(replay, 60)
    ours = learned[:, 0, 1] != 1
    assert ours.float().mean().item() == pytest.approx(1 / 2, abs=0.07)
    assert learned[ours][..., 1].unique().tolist() == [0, 2]
    places = context[..., :2]  # (iteration, trial)
    assert (places == places[:, :1]).all()
    found, counts = torch.unique(places[ours][:, 0], dim=0, return_counts=True)
    assert found.tolist() == [[i, m] for i in range(3 - recent, 3) for m in (0, 2)]
    assert counts.min() > 0.75 * counts.max()


def test_trials_of_other_lengths_are_stored_together(tmp_path):
    replay = opened(tmp_path)
    replay.add(trial(0, ["a", "b", "c"], shots=1))
    replay.add(trial(1, ["d", "e", "f"], shots=3))
    _, context = drawn(replay, 40)
    assert (context[context[:, 0, 0] == 0][..., 2] == 0).all()
    assert context[context[:, 0, 0] == 1][..., 2].unique().tolist() == [0, 1]


def test_old_iterations_are_dropped(tmp_path):
    replay = opened(tmp_path, capacity=2)
    for i in range(4):
        replay.add(trial(i, [f"{i} {m}" for m in range(M)]))
    learned, _ = drawn(replay)
    assert learned[..., 0].unique().tolist() == [2, 3] and len(replay) == 2 * 3 * (T * M * N - 3)


def test_loaded_again_it_draws_the_same(tmp_path):
    replay, again = opened(tmp_path), TaskReplay(10, 1)
    for i in range(3):
        replay.add(trial(i, ["a", f"b{i}", f"c{i}"]))
    again.load_state_dict(replay.state_dict())
    again.open(Folder(tmp_path))
    for ours, theirs in zip(drawn(replay), drawn(again), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(drawn(replay)[0], drawn(replay, seed=1)[0])


def test_it_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="holds no steps"):
        drawn(opened(tmp_path))
