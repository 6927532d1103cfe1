"""The replay buffer: what is drawn is what was stored, evenly, again after a resumption, and from sound files alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.agents.agent import Rollout
from metarl.agents.replay import Replay, transitions
from metarl.files import write

T, M, N, OBS, ACT = 4, 3, 2, 2, 1


@dataclasses.dataclass
class Folder:
    """The part of a world that a replay buffer uses."""

    folder: Path

    def write(self, name, parts):
        write(self.folder / name, parts)


def rollout(seed):
    """Random steps; the second env of task 1 ends after two of them, and task 2 was flagged."""
    generator = torch.Generator().manual_seed(seed)
    seen, last = (torch.randn(*shape, M, N, OBS, generator=generator) for shape in ((T,), ()))
    flags = torch.zeros(T, M, N, dtype=torch.bool)
    valid, terminated = ~flags, flags.clone()
    valid[2:, 1, 1], terminated[1, 1, 1], valid[:, 2] = False, True, False
    actions = torch.randn(T, M, N, ACT, generator=generator)
    return Rollout(seen, actions, seen.sum(-1), terminated, flags, valid, last)


def filled(folder, iterations=3, capacity=5):
    replay = Replay(capacity)
    replay.open(Folder(folder))
    for seed in range(iterations):
        replay.add(*transitions(rollout(seed)))
    return replay


def draw(replay, seed=0):
    return replay.sample(4, 6, torch.Generator().manual_seed(seed))


def test_transitions_are_the_steps_that_were_taken_with_what_came_after_each():
    played = rollout(0)
    columns, tasks = transitions(played)
    assert tasks.tolist() == [0, 0, 1, 1] * 2 + [0, 0, 1] * 2
    taken = [(t, m, n) for t in range(T) for m in range(2) for n in range(N) if played.valid[t, m, n]]
    for i, (t, m, n) in enumerate(taken):
        ends = t == T - 1 or (t, m, n) == (1, 1, 1)
        after = played.final_observations[m, n] if ends else played.observations[t + 1, m, n]
        assert torch.equal(columns["next_observations"][i], after)
        assert torch.equal(columns["observations"][i], played.observations[t, m, n])
        assert bool(columns["terminated"][i]) == ((t, m, n) == (1, 1, 1))


def test_what_is_drawn_was_stored_and_tasks_are_drawn_evenly_however_many_steps_they_have(tmp_path):
    replay, stored = filled(tmp_path), {}
    for seed in range(3):
        columns, tasks = transitions(rollout(seed))
        for m in (0, 1):
            stored[seed, m] = {tuple(row.tolist()) for row in columns["observations"][tasks == m]}
    drawn = replay.sample(3000, 8, torch.Generator().manual_seed(0))
    assert drawn["observations"].shape == (3000, 8, OBS) and drawn["observations"].dtype == torch.float32
    torch.testing.assert_close(drawn["rewards"], drawn["observations"].sum(-1))
    counts = dict.fromkeys(stored, 0)
    for rows, m in zip(drawn["observations"], drawn["task"][:, 0].tolist(), strict=True):
        seen = {tuple(row.tolist()) for row in rows}
        [place] = [place for place, own in stored.items() if seen <= own]  # all steps of a row are of one task
        assert place[1] == m
        counts[place] += 1
    assert all(abs(count - 500) < 80 for count in counts.values())  # 500 +- 20
    first = drawn["observations"][drawn["task"] == 0].reshape(-1, OBS)
    _, times = torch.unique(first, dim=0, return_counts=True)
    assert len(times) == 3 * T * N and times.min() > 0.75 * times.max()  # 500 +- 22 each


def test_the_oldest_iterations_are_dropped_from_the_buffer_and_their_files_are_not_its_to_remove(tmp_path):
    replay = filled(tmp_path, iterations=4, capacity=2)
    assert len(replay) == 2 and len(list(tmp_path.iterdir())) == 4
    kept = torch.cat([rollout(seed).observations.flatten(0, 2) for seed in (2, 3)])
    for row in draw(replay)["observations"].flatten(0, 1):
        assert (kept == row).all(-1).any()


def test_loaded_again_it_draws_the_same_and_writes_the_same_files(tmp_path):
    whole, state = filled(tmp_path), filled(tmp_path, 2).state_dict()
    again = Replay(5)
    again.load_state_dict(state)
    again.open(Folder(tmp_path))
    again.add(*transitions(rollout(2)))
    assert again.state_dict() == whole.state_dict() and len(list(tmp_path.iterdir())) == 3
    for name, column in draw(whole).items():
        assert torch.equal(column, draw(again)[name])
    assert not torch.equal(draw(whole)["rewards"], draw(whole, 1)["rewards"])


def test_another_content_never_takes_the_place_of_a_file_that_a_checkpoint_names(tmp_path):
    state, other = filled(tmp_path, 1).state_dict(), Replay(5)
    other.open(Folder(tmp_path))
    other.add(*transitions(rollout(7)))
    assert other.state_dict()["segments"] != state["segments"]
    again = Replay(5)
    again.load_state_dict(state)
    again.open(Folder(tmp_path))
    assert torch.equal(draw(again)["rewards"], draw(filled(tmp_path, 1))["rewards"])


def test_an_iteration_without_a_step_stores_nothing(tmp_path):
    replay = filled(tmp_path, 1)
    columns, tasks = transitions(rollout(0))
    replay.add({name: column[:0] for name, column in columns.items()}, tasks[:0])
    assert len(replay) == 1


def _flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), r"segment_000002_\w+.npy, a segment of the replay buffer, is missing; restore"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged; restore"),
        (lambda path: path.write_bytes(_flip(path.read_bytes())), "is damaged; restore"),
        (lambda path: path.write_bytes(b""), "is damaged; restore"),
        (lambda path: np.save(path, np.array([{}], dtype=object)), "is damaged; restore"),  # a pickle, which runs code
        (lambda path: np.save(path, np.zeros((3, 2))), "is damaged; restore"),
    ],
)
def test_a_file_that_is_not_what_it_was_is_refused_by_name(tmp_path, harm, message):
    state = filled(tmp_path).state_dict()
    harm(tmp_path / state["segments"][1])
    again = Replay(5)
    again.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        again.open(Folder(tmp_path))


@pytest.mark.parametrize(
    "state",
    [
        {"number": 1, "segments": ["../../segment_000001_0123456789abcdef.npy"]},
        {"number": 1, "segments": [7]},
        {"number": 0, "segments": ["segment_000001_0123456789abcdef.npy"]},
        {"number": "1", "segments": []},
    ],
)
def test_a_state_that_it_did_not_write_is_refused(state):
    with pytest.raises(ValueError, match="replay buffer"):
        Replay(5).load_state_dict(state)


def test_it_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="capacity must be at least 1 iteration, got 0"):
        Replay(0)
    with pytest.raises(ValueError, match="open the replay buffer in a world"):
        Replay(1).add(*transitions(rollout(0)))
    with pytest.raises(ValueError, match="holds no steps"):
        draw(filled(tmp_path, 0))
