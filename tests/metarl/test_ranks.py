"""Several processes that train one run: what they compute, how they end, and how torchrun starts them again.

All of them are really launched, over gloo.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarl.agents.moments import Moments
from metarl.agents.ranks import ALONE, Ranks, mean_and_std, sum_gradients
from metarl.cli import app as cli
from metarl.errors import UsageError
from metarl.runs.checkpoint import CheckpointStore
from metarl.runs.tracking import read_metrics
from metarl.training import failures
from metarl.training.launched import Launched, Member
from metarl.training.network import interface_towards

ROOT = Path(__file__).parents[2]
TIMING = ("env_steps_per_s", "time/collect", "time/update")
LIMIT_S = 300
"""Of a launch; a process that waits for one that is gone would take half an hour."""


def command(processes: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *options]


def launch(environment, folder: Path, words: list[str]) -> subprocess.Popen[str]:
    env = {**environment, "PYTHONPATH": str(ROOT)}
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(words, cwd=folder, env=env, text=True, start_new_session=True, stdout=pipe, stderr=out)


@pytest.fixture
def started(environment, tmp_path) -> Iterator:
    """Start a launch, in a session of its own that ends with the test."""
    processes = []

    def start(*words: str) -> subprocess.Popen[str]:
        processes.append(launch(environment, tmp_path, list(words)))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What a launch printed, once it has ended."""
    return process.communicate(timeout=LIMIT_S)[0]


def statuses(text: str) -> set[int]:
    """What the processes ended with, by torchrun's account; but for its own SIGTERM to those that were slower."""
    return {int(status) for status in re.findall(r"exitcode  : (-?\d+)", text)} - {-signal.SIGTERM}


def await_lines(record: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not record.exists() or record.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pid_of(rank: int, folder: Path) -> int:
    """The process of a rank that runs in a folder."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in words and (entry / "cwd").resolve() == folder.resolve():
                return int(entry.name)
        except (OSError, ValueError):
            continue
    raise AssertionError(f"no process of rank {rank}")


def numbers(run_dir: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(run_dir)]


def train(tiny, *options: str) -> list[str]:
    words = [w for w in tiny if not w.startswith("training.tasks")]
    return ["-m", "metarl", "train", "--family", "point_goal", *words, "training.tasks=3", *options]


QUIET = "tracking.wandb=disabled"


class Part(Ranks):
    """The first of several processes, whose sums are given."""

    def __init__(self, rank: int, size: int, sums=()) -> None:
        self.rank, self.size, self._sums = rank, size, list(sums)

    def sum(self, tensor):
        return tensor + self._sums.pop(0)


@pytest.mark.parametrize(("count", "size"), [(5, 1), (5, 2), (5, 3), (6, 3), (40, 7), (3, 3)])
def test_shares_are_all_tasks_in_order_and_as_equal_as_can_be(count, size):
    shares = [list(Part(rank, size).own(count)) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_moments_of_two_processes_are_those_of_all_values():
    values = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.01 + 7.0
    whole, parts = Moments(3).double(), Moments(3).double()
    whole.update(values)
    other = values[:15]
    sums = torch.stack([torch.full((3,), 15.0, dtype=torch.float64), other.sum(0), other.square().sum(0)])
    parts.update(values[15:], Part(0, 2, [sums]))
    for name in ("count", "mean", "variance"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=0)


def test_mean_and_deviation_of_two_processes_are_those_of_all_values():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = values.mean()
    sums = [torch.stack([torch.tensor(15.0), values[:15].sum()]), (values[:15] - mean).square().sum()]
    for found, expected in zip(mean_and_std(values[15:], Part(0, 2, sums), 1), (mean, values.std()), strict=True):
        torch.testing.assert_close(found, expected)
    assert mean_and_std(values, ALONE)[1] == values.std(correction=0)


def test_a_gradient_that_no_process_has_stays_away():
    """An optimiser passes it over, as in one process; one that the others alone have is theirs."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    theirs = torch.tensor([3.0, 3.0, 5.0, 5.0, 0.0, 0.0, 1.0, 1.0, 0.0])  # and whether they have each
    sum_gradients(parameters, Part(0, 2, [theirs]))
    assert parameters[0].grad.tolist() == [4.0, 5.0] and parameters[1].grad.tolist() == [5.0, 5.0]
    assert parameters[2].grad is None


def together(*members: Member) -> list[Launched]:
    """Processes that have met, without a network between them."""
    made = [Launched.__new__(Launched) for _ in members]
    for rank, one in enumerate(made):
        one.rank, one.size, one.members = rank, len(members), list(members)
    return made


def member(rank: int, host: str, cores: set[int], torch: str = "2") -> Member:
    return Member(rank, host, "boot", host, frozenset(cores), "", (("torch", torch),))


@pytest.mark.parametrize(
    ("hosts_and_cores", "shares"),
    [
        ([("a", {0, 1, 2, 3}), ("a", {0, 1, 2, 3})], [2, 2]),
        ([("a", {0, 1}), ("a", {2, 3})], [2, 2]),
        ([("a", {0, 1, 2, 3}), ("b", {0, 1, 2, 3})], [4, 4]),
        ([("a", {0, 1})] * 3, [1, 1, 1]),
        ([("a", {0, 1, 2, 3, 4, 5}), ("a", {0, 1})], [5, 1]),
    ],
)
def test_processes_of_one_machine_share_the_cores_that_both_may_use(hosts_and_cores, shares):
    all_of_them = together(*(member(rank, *own) for rank, own in enumerate(hosts_and_cores)))
    found = [one.share_of_cores(len(cores)) for one, (_, cores) in zip(all_of_them, hosts_and_cores, strict=True)]
    assert found == shares


def test_other_versions_on_another_machine_are_refused():
    one, _ = together(member(0, "a", {0}, "2.13"), member(1, "b", {0}, "2.12"))
    with pytest.raises(UsageError, match="process 1 on b has torch 2.12, process 0 on a has 2.13; install the same"):
        one.require_alike()


def test_the_network_towards_a_machine():
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no such host") is None


def test_a_process_that_gives_no_sign_of_life_is_missed(monkeypatch):
    monkeypatch.setattr(failures, "LOOK_S", 0.01)
    monkeypatch.setattr(failures, "SILENT_S", 0.1)
    monkeypatch.setattr(failures, "GRACE_S", 1e6)
    store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    first, _ = (failures.Failures(rank, 2, store) for rank in range(2))  # the second never gives another sign
    first.watch(["a", "b"])
    deadline = time.monotonic() + LIMIT_S
    while first.known is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.close()
    message = f"error: process 1 of this run has given no sign of life for 0 s; {failures.REMEDY}"
    assert first.known == failures.Failure(0, 1, message)


@pytest.mark.thorough
def test_processes_together_compute_what_one_does(environment, tmp_path):
    """5 or 6 tasks: in unequal shares. One env is flagged, which RL2's minibatches are counted without."""
    program = str(Path(__file__).parent / "in_ranks.py")
    found: dict[int, dict] = {}
    for size in (1, 3):
        file = tmp_path / f"{size}.pt"
        words = [sys.executable] if size == 1 else command(size)
        process = launch(environment, tmp_path, [*words, program, str(file)])
        text = ended(process)
        assert process.returncode == 0, text
        found[size] = torch.load(file)
    for name, one in found[1].items():
        several = found[3][name]
        assert several["tasks"] == one["tasks"], name
        assert several["curriculum"] == one["curriculum"], name
        assert (several["gradient"] - one["gradient"]).norm() <= 1e-6 * one["gradient"].norm(), name
        torch.testing.assert_close(several["state"], one["state"], rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(several["metrics"], one["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_killed_without_a_word_a_rank_is_started_again_and_the_run_goes_on(started, tmp_path, tiny):
    """The command of a restart is the same: the run is found again without a name."""
    options = ["training.checkpoint_every=4", QUIET, "training.seed=3"]
    process = started(*command(2, "--max-restarts=1"), *train(tiny, *options, "training.iterations=12"))
    deadline = time.monotonic() + LIMIT_S
    while not (folders := list(tmp_path.glob("runs/*"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    await_lines(folders[0] / "metrics.jsonl", 6, process)
    os.kill(pid_of(1, tmp_path), signal.SIGKILL)
    text = ended(process)
    assert process.returncode == 0, text
    assert list(tmp_path.glob("runs/*")) == folders
    assert [line["iteration"] for line in read_metrics(folders[0])] == list(range(1, 13))
    whole = started(*command(2), *train(tiny, *options, "training.iterations=12", "--name", "whole"))
    text = ended(whole)
    assert whole.returncode == 0, text
    assert numbers(folders[0]) == numbers(tmp_path / "runs" / "whole")
    found = [CheckpointStore(run / "checkpoints").load("last")[1] for run in (folders[0], tmp_path / "runs" / "whole")]
    torch.testing.assert_close(found[0]["agent"], found[1]["agent"], rtol=0, atol=0)
    assert text.count("iteration 12/12") == 1 and text.count("run: runs/whole") == 1  # one process speaks


LEAVES = """
import atexit, torch
from metarl.training.launched import join
ranks = join()
atexit.register(print, "ended in order", flush=True)
assert ranks.sum(torch.ones(1)) == 2
ranks.leave(0)
print("alive", flush=True)
"""


@pytest.mark.thorough
def test_a_process_that_leaves_ends_in_order_before_python_shuts_down(started, tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    process = started(*command(2), "leaves.py")
    text = ended(process)
    assert process.returncode == 0, text
    assert text.count("ended in order") == 2 and "alive" not in text


FAILS = """
import os, sys
from metarl.cli import app as cli
from metarl.training.world import TrainingWorld
from metarl.errors import RunError
iterate = TrainingWorld.iterate
def failing(self, tasks, key):
    if key == 3 and os.environ["RANK"] == "1":
        raise RunError("the disk of this machine is gone")
    return iterate(self, tasks, key)
TrainingWorld.iterate = failing
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.thorough
def test_an_error_of_one_rank_ends_all_with_its_message(started, tmp_path, tiny):
    (tmp_path / "fails.py").write_text(FAILS)
    words = train(tiny, "training.iterations=1000000", "--name", "failed", QUIET)[2:]
    process = started(*command(2), "fails.py", *words)
    text = ended(process)
    assert process.returncode == 1
    assert text.count("error: the disk of this machine is gone") == text.count("error: ") == 1
    assert statuses(text) == {1}
    assert [line["iteration"] for line in read_metrics(tmp_path / "runs" / "failed")] == [1, 2, 3]


@pytest.mark.thorough
@pytest.mark.parametrize("restarts", [0, 2])
def test_sigterm_to_one_rank_ends_all_with_a_checkpoint_that_one_process_goes_on_from(
    restarts, started, tmp_path, tiny, monkeypatch
):
    """torchrun starts them again: they leave at once."""
    options = ["training.iterations=1000000", "training.checkpoint_every=1000000", "--name", "ended", QUIET]
    process = started(*command(2, f"--max-restarts={restarts}"), *train(tiny, *options))
    run_dir = tmp_path / "runs" / "ended"
    await_lines(run_dir / "metrics.jsonl", 3, process)
    os.kill(pid_of(1, tmp_path), signal.SIGTERM)
    text = ended(process)
    assert process.returncode != 0 and text.count("stopped by SIGTERM; resume with metarl train --resume") == 1
    assert statuses(text) == {143}, text
    reached = len(read_metrics(run_dir))
    assert CheckpointStore(run_dir / "checkpoints").load("last")[1]["iteration"] == reached
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--resume", "runs/ended", f"training.iterations={reached + 2}"]) == 0
    assert [line["iteration"] for line in read_metrics(run_dir)] == list(range(1, reached + 3))


@pytest.mark.thorough
def test_the_user_is_told_once_what_cannot_be(started, tmp_path, tiny):
    ppo = started(*command(2), *train(tiny, "--agent", "ppo", QUIET))
    text = ended(ppo)
    assert text.count("error: ") == 1 and statuses(text) == {2}, text
    assert "error: agent: ppo is Stable-Baselines3's and learns in one process, not in 2; train it without" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "there"], "error: runs/there exists; resume it with metarl train --resume runs/there"),
        (["training.tasks=1"], "error: training.tasks is 1, and 2 processes share them; each needs at least one"),
        (["--bogus"], "error: unknown option --bogus"),
    ],
)
def test_every_mistake_is_told_once(started, tmp_path, tiny, words, message):
    assert cli.main(["train", "--runs-dir", str(tmp_path / "runs"), "--name", "there", *tiny, QUIET, *MINUTE]) == 0
    tasks = [w for w in train(tiny) if words != ["training.tasks=1"] or not w.startswith("training.tasks")]
    text = ended(started(*command(2), *tasks, *words, QUIET))
    assert text.count("error: ") == 1 and message in text and statuses(text) == {2}, text


MINUTE = ("--family", "point_goal", "training.iterations=1")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2: two machines, but for the disk."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"metarl{os.getpid()}{end}" for end in "ab"]

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    try:
        if not all(ip("netns", "add", name) for name in names):
            pytest.skip("this machine gives no network namespaces")
        cable = ["link", "add", "eth", "netns", names[0], "type", "veth", "peer", "name", "eth", "netns", names[1]]
        assert ip(*cable)
        for number, name in enumerate(names, 1):
            assert ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth")
            assert ip("-n", name, "link", "set", "eth", "up") and ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
def test_two_machines_train_one_run_and_go_on_after_a_kill(hosts, started, tmp_path, tiny):
    options = train(tiny, "training.iterations=24", "training.checkpoint_every=4", QUIET)
    where = ["--nnodes=2", "--max-restarts=1", "--master-addr=10.77.0.1", "--master-port=29517"]
    processes = [
        started("ip", "netns", "exec", name, *command(1, *where, f"--node-rank={number}"), *options, "--name", "far")
        for number, name in enumerate(hosts)
    ]
    await_lines(tmp_path / "runs" / "far" / "metrics.jsonl", 6, processes[0])
    os.kill(pid_of(1, tmp_path), signal.SIGKILL)
    texts = [ended(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    near = started(*command(2), *options, "--name", "near")
    text = ended(near)
    assert near.returncode == 0, text
    assert numbers(tmp_path / "runs" / "far") == numbers(tmp_path / "runs" / "near")
    assert "iteration 24/24" in texts[0] and "iteration" not in texts[1].split("metarl FAILED")[0]
