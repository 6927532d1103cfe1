"""Checkpoints: whole or refused, and what was saved before stays."""

import errno
import functools
import io
import itertools
import math
import os
import pickle
import random
import resource
import zipfile

import numpy as np
import pytest
import torch

from metarl.errors import RunError
from metarl.runs import checkpoint
from metarl.runs.checkpoint import OWN_FILES, WHOLE_RANGE, Best, CheckpointError, CheckpointStore, best_of, load, save
from metarl.training.loop import level_of

STATE = {"iteration": 3, "agent": {"theta": torch.arange(1000.0)}, "best_return": -1.5, "tracking": {"wandb_id": None}}


def same(a, b):
    assert a.keys() == b.keys()
    assert torch.equal(a["agent"]["theta"], b["agent"]["theta"])
    return {k: v for k, v in a.items() if k != "agent"} == {k: v for k, v in b.items() if k != "agent"}


def test_what_is_loaded_is_what_was_saved(tmp_path):
    save(tmp_path / "a.pt", STATE)
    assert same(load(tmp_path / "a.pt"), STATE)
    assert os.listdir(tmp_path) == ["a.pt"]  # the temporary file is gone


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, "last byte"])
def test_a_checkpoint_cut_short_is_refused_by_name(tmp_path, share):
    path = tmp_path / "a.pt"
    save(path, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: -1 if share == "last byte" else int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"a\.pt (is cut short|cannot be read)"):
        load(path)


def test_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    save(path, STATE)
    data = bytearray(path.read_bytes())
    tensor = STATE["agent"]["theta"].numpy().tobytes()
    data[bytes(data).index(tensor) + 2000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged: the checksum of .* is wrong"):
        load(path)


def test_another_format_is_refused_with_both_versions(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    save(path, STATE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=rf"a\.pt has format {checkpoint.FORMAT + 1} .* reads format"):
        load(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match=r"no checkpoint .*a\.pt"):
        load(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="was not written by metarl"):
        load(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="is cut short, or no checkpoint"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)


def test_a_checkpoint_from_a_stranger_runs_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "a.pt"
    torch.save({"format": 1, "state": Attack()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError):
        load(path)
    assert not (tmp_path / "owned").exists()


def test_the_last_few_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    for iteration in range(1, 6):
        store.save({**STATE, "iteration": iteration}, iteration, best=iteration == 2)
    assert [p.name for p in store.paths()] == ["iteration_000004.pt", "iteration_000005.pt"]
    assert store.load("last")[1]["iteration"] == 5
    assert store.load("best")[1]["iteration"] == 2
    assert store.load(store.path(4))[1]["iteration"] == 4


def test_what_a_kill_kept_it_from_removing_is_removed_when_the_run_is_gone_on_with(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.save({**STATE, "iteration": 1}, 1)
    first = store.path(1).read_bytes()
    store.save({**STATE, "iteration": 2}, 2)
    store.path(1).write_bytes(first)
    store.path(3).write_bytes(first[:-9])  # refused
    (tmp_path / ".iteration_000003.pt.17.tmp").write_bytes(b"")
    CheckpointStore(tmp_path, keep=1).tidy(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration_000002.pt", "iteration_000003.pt"]


def test_an_agents_file_is_kept_as_long_as_a_kept_checkpoint_names_it(tmp_path):
    files = tmp_path / OWN_FILES
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    store.save(STATE, 1)
    files.mkdir()
    (files / "notes").mkdir()
    (files / ".piece.tmp").write_bytes(b"")  # of a write that was killed

    def save_at(iteration, *names, best=False, store=store):
        for name in names:
            (files / name).write_bytes(b"")
        store.save({**STATE, "agent": {"replay": {"segments": list(names)}}}, iteration, best=best)
        return sorted(file.name for file in files.iterdir())

    assert save_at(2, "a", "b") == ["a", "b", "notes"]
    assert save_at(3, "b", "c", best=True) == ["a", "b", "c", "notes"]
    (files / "between").write_bytes(b"")  # dropped by the agent before any checkpoint named it
    assert save_at(4, "c", "d") == ["b", "c", "d", "notes"]
    assert save_at(5, "d", "e") == ["b", "c", "d", "e", "notes"]
    later = CheckpointStore(tmp_path / "checkpoints", keep=2)  # as after a resumption: it reads what they name
    assert save_at(6, "e", "f", store=later) == ["b", "c", "d", "e", "f", "notes"]  # 3 is the best
    whole = (tmp_path / "checkpoints" / "best.pt").read_bytes()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(whole[:-9])
    again = CheckpointStore(tmp_path / "checkpoints", keep=1)
    assert save_at(7, "g", store=again) == ["b", "c", "d", "e", "f", "g", "notes"]  # nobody knows what the best names
    assert save_at(8, "g", best=True, store=again) == ["g", "notes"]


def test_a_broken_last_checkpoint_is_named_and_the_one_before_it_used(tmp_path, capsys):
    store = CheckpointStore(tmp_path, keep=1)
    store.save({**STATE, "iteration": 1}, 1)
    broken = tmp_path / "iteration_000009.pt"
    broken.write_bytes(b"PK")
    path, state = store.load("last")
    assert (path, state["iteration"]) == (store.path(1), 1)
    warning = capsys.readouterr().err
    assert str(broken) in warning and "cut short" in warning and "trying the one before it" in warning
    # The run goes on from 1: its next checkpoint must not be thrown away in favour of the broken one.
    store.save({**STATE, "iteration": 2}, 2)
    assert store.load("last")[1]["iteration"] == 2


def test_no_usable_checkpoint_is_said(tmp_path):
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint in .*start it anew"):
        store.load("last")
    store.path(1).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"can be used: checkpoint .*iteration_000001\.pt is cut short"):
        store.load("last")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_named_and_nothing_is_lost(tmp_path, monkeypatch, code):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(STATE, 1)

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    for iteration in (1, 2):
        with pytest.raises(RunError, match=f"cannot write .*iteration_00000{iteration}.pt: {os.strerror(code)}"):
            store.save({**STATE, "iteration": -1}, iteration)
    monkeypatch.undo()
    assert same(store.load("last")[1], STATE)
    assert os.listdir(tmp_path) == ["iteration_000001.pt"]


def packed(data: bytes) -> bytes:
    """The archive, compressed, which torch would read too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


def of(content) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": checkpoint.FORMAT, "metarl": "0", "state": content}, buffer)
    return buffer.getvalue()


def laughs(depth: int):
    value = ["x"]
    for _ in range(depth):
        value = [value] * 9
    return value


def endless():
    value = {}
    value["again"] = value
    return value


BOMBS = {
    "zeros that are packed": lambda: packed(of({"a": torch.zeros(2**22)})),
    "a tensor larger than its numbers": lambda: of({"a": torch.zeros(1).expand(10**12)}),
    "a sparse tensor": lambda: of({"a": torch.zeros(10**6, 10**6, layout=torch.sparse_coo)}),
    "lists within lists": lambda: of({"a": laughs(15)}),
    "levels": lambda: of(functools.reduce(lambda value, _: {"a": value}, range(200), {})),
    "a circle": lambda: of(endless()),
    "a pickle without end": lambda: of({"a": 1}).replace(b"data.pkl", b"dat4.pkl"),
    "random": lambda: random.Random(1).randbytes(5000),
}


@pytest.mark.parametrize("what", list(BOMBS))
def test_a_checkpoint_takes_no_more_memory_than_its_file(what, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(BOMBS[what]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"a\.pt") as caught:
        load(path)
    assert len(str(caught.value)) < 400 and "weights_only" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_what_networks_share_is_no_bomb(tmp_path):
    shared = torch.randn(1000)
    save(tmp_path / "a.pt", {"a": shared, "b": shared, "c": [shared, shared]})
    assert torch.equal(load(tmp_path / "a.pt")["c"][1], shared)


def test_a_pipe_is_no_checkpoint_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt is a pipe or a device, no file"):
        load(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_files_that_are_called_like_checkpoints_are_none(tmp_path):
    for name in ("iteration_x.pt", "iteration_.pt", "iteration_000000.pt", f"iteration_{'9' * 100}.pt"):
        (tmp_path / name).touch()
    store = CheckpointStore(tmp_path)
    store.save({**STATE, "iteration": 999_999}, 999_999)
    store.save({**STATE, "iteration": 1_000_000}, 1_000_000)
    assert [p.name for p in store.paths()] == ["iteration_999999.pt", "iteration_1000000.pt"]


@pytest.mark.parametrize(
    ("state", "finite"),
    [
        ({"a": [torch.ones(2), 1.0, None, "x"]}, True),
        ({"a": [torch.tensor([1.0, torch.nan])]}, False),
        ((1, {"b": torch.inf}), False),
        ({"n": torch.arange(3)}, True),
    ],
)
def test_what_is_finite(state, finite):
    assert checkpoint.is_finite(state) == finite


class TestBest:
    def test_harder_tasks_come_before_a_higher_return_and_what_broke_down_is_never_the_best(self):
        easy, hard = Best(0.0, 8.0), Best(0.4, 7.0)
        assert hard.is_above(easy) and not easy.is_above(hard)
        assert Best(0.4, 7.5).is_above(hard) and not hard.is_above(hard)
        assert easy.is_above(Best(0.0, -math.inf))
        assert not Best(0.9, math.nan).is_above(hard)

    def test_the_order_of_the_levels_decides_nothing(self):
        orders = [*itertools.permutations(k / 7 for k in range(1, 4))]
        assert len({float(np.mean(own)) for own in orders}) == 2  # that differ in their last digit
        assert len({level_of({f"curriculum/{k}": x for k, x in enumerate(own)}) for own in orders}) == 1
        assert level_of({"return/after": 3.0}) == WHOLE_RANGE

    def test_checkpoints_of_before_told_the_return_alone(self):
        old = {"best_return": -1.5, "curriculum": None}
        assert best_of(old) == Best(WHOLE_RANGE, -1.5)
        assert best_of({**old, "curriculum": {"levels": {0.0: 3}}}) == Best(0.0, -1.5)
        assert best_of({**old, "best_level": 0.3}) == Best(0.3, -1.5)

    @pytest.mark.parametrize("there", [{}, {"best_level": 0.25}, {"best_level": "hard"}, {"best_return": 9.0}])
    def test_one_that_is_worse_than_was_said_is_replaced(self, there, tmp_path, capsys):
        """Of a lower level though of a higher return, and one that does not say it in numbers."""
        store = CheckpointStore(tmp_path)
        store.save({**STATE, "curriculum": {"levels": {}}, **there}, 3, best=True)
        assert store.best(Best(0.5, -2.0)) == Best(0.0, -math.inf)
        assert "; the next checkpoint becomes the best" in capsys.readouterr().err

    def test_one_that_is_ahead_of_what_was_said_counts(self, tmp_path, capsys):
        store = CheckpointStore(tmp_path)
        store.save({**STATE, "best_level": 0.5}, 3, best=True)
        assert store.best(Best(0.5, -2.0)) == store.best(Best(0.25, 7.0)) == Best(0.5, STATE["best_return"])
        assert not capsys.readouterr().err
