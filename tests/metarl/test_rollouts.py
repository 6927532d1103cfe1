"""Logged episodes: what evaluation logs adapts as evaluation adapted, and whatever does not fit is named."""

import dataclasses
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents import beliefs
from metarl.agents.registry import AGENT_SETTINGS
from metarl.agents.sb3.tuned import ADAM
from metarl.cli import app as cli
from metarl.deployment.adaptation import adapt, group
from metarl.deployment.episode import LoggedEpisode, assemble
from metarl.deployment.episode_check import check_episode
from metarl.deployment.export import export_run
from metarl.deployment.logs import load_episodes, save_episode, save_trial
from metarl.deployment.on_policy import deviations
from metarl.errors import UsageError
from metarl.runs import checkpoint
from metarl.runs.beliefs import load_belief, save_belief
from metarl.runs.run import Run, load_run
from metarl.runs.trial import stream
from tests.metarl.test_control import arm
from tests.metarl.test_controller import HOPPER, evaluated, make_run
from tests.sampling import sampled
from tests.small_agents import small_options


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny):
    """Make a short run of an agent; returns its folder."""
    made: dict[str, Path] = {}

    def make(agent: str) -> Path:
        if agent not in made:
            folder = tmp_path_factory.mktemp(agent)
            arguments = ["--runs-dir", folder, "--name", "r", "--agent", agent, "--family", "point_goal", *tiny]
            arguments += ["training.iterations=2", "tracking.wandb=disabled", *small_options(agent)]
            assert cli.main(["train", *map(str, arguments)]) == 0
            made[agent] = folder / "r"
        return made[agent]

    return make


@pytest.fixture(scope="module")
def logged(trained, tmp_path_factory):
    """The rollouts that evaluating MAML logged."""
    folder = tmp_path_factory.mktemp("logged")
    assert cli.main(["evaluate", str(trained("maml")), "--log-rollouts", str(folder)]) == 0
    return folder


@pytest.fixture
def log(logged, tmp_path, capsys):
    """A copy of those of its first task."""
    capsys.readouterr()
    return Path(shutil.copytree(logged / "seed1_task000", tmp_path / "log"))


def plain(belief) -> list[torch.Tensor]:
    def tensors(state) -> list[torch.Tensor]:
        if isinstance(state, dict):
            return [x for name, part in state.items() if name not in ADAM for x in tensors(part)]
        return [state] if isinstance(state, torch.Tensor) else []

    found = tensors(beliefs.saved(belief))
    assert found
    return found


@pytest.mark.parametrize("lives", [False, True], ids=["falls end it", "lives"])
@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_from_what_evaluation_logged_it_reaches_the_belief_that_evaluation_reached(name, lives, tmp_path):
    """Of episodes of different lengths, or of several lives each; the belief of a memory is that of one env."""
    run = make_run(name, HOPPER, envs=3, adaptations=2)
    if not run.agent.facts.adapts:
        pytest.skip("this agent does not adapt")
    task = run.family.sample(1, np.random.default_rng(0))[0]
    rng = np.random.default_rng(0)
    result = evaluated(run, task, rng, explore=True, lives=lives)  # an agent that draws, draws alike
    save_trial(tmp_path, run.agent, run.family, result.trial, [task], seed=1)
    apart = run.agent.facts.belief_per_env
    logs = sorted(path.name for path in tmp_path.iterdir())
    assert logs == ([f"seed1_task000_env00{n}" for n in range(3)] if apart else ["seed1_task000"])
    reached = result.trial.beliefs[-1]
    for n, log in enumerate(logs):
        episodes = load_episodes(str(tmp_path / log), run.family)
        assert len(episodes) == (3 if apart else 9)
        varied = {int(e.terminated[:-1].sum()) if lives else len(e.rewards) for e in episodes}
        assert max(varied) > 0 and (lives or len(varied) > 1)
        if lives:  # what a fall led to is not where the robot stood again
            read = assemble(episodes[: 1 if apart else 3], run.family)
            ours, theirs = read.next_observations, result.trial.rollouts[0].next_observations
            assert ours is not None and theirs is not None
            theirs = theirs[:, :, n : n + 1] if apart else theirs
            torch.testing.assert_close(ours[read.valid], theirs[read.valid])
        adapted = adapt(run, episodes, adaptations=2)
        assert adapted.left == 1
        for ours, theirs in zip(plain(adapted.belief), plain(reached), strict=True):
            torch.testing.assert_close(ours, theirs[:, n : n + 1] if apart else theirs, rtol=1e-4, atol=1e-5)
        seen = torch.rand(1, 1, run.family.observation_size)
        actions = [
            run.agent.act(belief, seen, None)[0]
            for belief in (adapted.belief, run.agent.begin(1, 1, [torch.Generator()]))
        ]
        assert not torch.equal(*actions)


@pytest.mark.parametrize("name", sampled(AGENT_SETTINGS, 4))
def test_the_command_saves_a_belief_that_a_robot_starts_with(name, trained, tmp_path, capsys):
    directory = trained(name)
    run = load_run(directory)
    if not run.agent.facts.adapts:
        pytest.skip("this agent does not adapt")
    noisy = ["evaluation.explore=true"] if run.config.evaluation.explores_apart else []
    assert cli.main(["evaluate", str(directory), "--log-rollouts", str(tmp_path), *noisy]) == 0
    log = sorted(tmp_path.iterdir())[0]
    capsys.readouterr()
    assert cli.main(["adapt", str(directory), "--rollouts", str(log)]) == 0
    said = capsys.readouterr().out
    assert "shot 0: " in said and "1 of 2 shots were not used; --adaptations 2 adapts from all" in said
    file = directory / "beliefs" / f"{log.name}.pt"
    assert f"saved {file}" in said
    expected = adapt(run, load_episodes(str(log), run.family), 1).belief
    torch.testing.assert_close(plain(load_belief(file, run)), plain(expected), rtol=0, atol=0)
    observation = np.full(run.family.observation_size, 0.1)
    adapted, fresh = (run.start(belief=b, explore="never").act(observation) for b in (file, None))
    torch.testing.assert_close(
        torch.from_numpy(adapted)[None, None],
        run.agent.act(expected, torch.full((1, 1, 2), 0.1), None)[0].detach(),
        rtol=0,
        atol=0,
    )
    assert not np.array_equal(adapted, fresh)


def rewrite(folder: Path, **changes) -> None:
    """Change fields of the second episode of the log; None removes one."""
    file = sorted(folder.glob("*.npz"))[1]
    fields = dict(np.load(file))
    for name, change in changes.items():
        fields[name] = change(fields[name].copy()) if callable(change) else change
    np.savez(file, **{name: value for name, value in fields.items() if value is not None})


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


def cut(folder: Path, keep: float) -> None:
    file = sorted(folder.glob("*.npz"))[1]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])


def flip(folder: Path) -> None:
    file = sorted(folder.glob("*.npz"))[1]
    data = bytearray(file.read_bytes())
    data[120] ^= 0xFF
    file.write_bytes(data)


def write(folder: Path, data: bytes) -> None:
    sorted(folder.glob("*.npz"))[1].write_bytes(data)


def single() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def pickled() -> bytes:
    import pickle

    return pickle.dumps(Bomb())


def npz(edit=lambda info: None, method=zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """An archive of these members and nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
        for info in archive.infolist():
            edit(info)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    """An array of which the header says so."""
    padded = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


def encrypt(info: zipfile.ZipInfo) -> None:
    info.flag_bits |= 1


def lie(info: zipfile.ZipInfo) -> None:
    info.file_size = 2**31 - 1


def zeros() -> bytes:
    """Half a gigabyte of zeros that is half a megabyte packed."""
    return npz(rewards=b"\0" * 2**29, method=zipfile.ZIP_DEFLATED)


HEADERS = {
    "a shape of 10^12": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "a shape of nothing": "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "a negative shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }",
    "a shape beyond 64 bits": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**40}, 0), }}",
    "a shape of truth": "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "a shape of text": "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',), }",
    "a type that is none": "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }",
    "no dictionary": "[1, 2",
    "brackets": "(" * 9000,
    "a call": "__import__('os').system('true')",
}
FILE = "shot00_episode001.npz"
BROKEN = {
    "wrong width": (
        lambda f: rewrite(f, observations=lambda x: x[:, :1]),
        f"{FILE}: observations has shape (11, 1); it must be (11, 2): the policy reads 2 channels",
    ),
    "one observation too few": (
        lambda f: rewrite(f, observations=lambda x: x[:-1]),
        f"{FILE}: observations has shape (10, 2); it must be (11, 2)",
    ),
    "actions of another length": (
        lambda f: rewrite(f, actions=lambda x: x[:-1]),
        f"{FILE}: actions has shape (9, 2); it must be (10, 2): the policy has 2 actions, and rewards has 10 steps",
    ),
    "actions without an axis": (lambda f: rewrite(f, actions=lambda x: x[:, 0]), "actions has shape (10,); it must be"),
    "rewards in a column": (
        lambda f: rewrite(f, rewards=lambda x: x[:, None]),
        f"{FILE}: rewards has shape (10, 1); it must be (T,)",
    ),
    "no step": (
        lambda f: rewrite(f, rewards=lambda x: x[:0]),
        "rewards has 0 steps; an episode of this policy has 1 to 10",
    ),
    "too long": (
        lambda f: rewrite(f, rewards=lambda x: np.repeat(x, 2)),
        "rewards has 20 steps; an episode of this policy has 1 to 10, as in training",
    ),
    "NaN": (
        lambda f: rewrite(f, observations=put((3, 1), np.nan)),
        f"{FILE}: observations[3, 1] (y [m]) is nan; it must be a finite number",
    ),
    "infinite action": (lambda f: rewrite(f, actions=put((9, 0), np.inf)), "actions[9, 0] (action 0) is inf"),
    "NaN reward": (lambda f: rewrite(f, rewards=put(0, np.nan)), "rewards[0] is nan"),
    "beyond float32": (lambda f: rewrite(f, rewards=np.full(10, 1e300)), "rewards[0] is inf"),
    "text": (
        lambda f: rewrite(f, actions=np.array(["a", "b"])),
        f"{FILE}: actions is <U1; it must be an array of numbers",
    ),
    "objects": (
        lambda f: rewrite(f, actions=np.array([Bomb()], dtype=object)),
        f"{FILE}: actions is an array of Python objects, which only a pickle can hold",
    ),
    "a field missing": (lambda f: rewrite(f, rewards=None), f"{FILE} lacks the field rewards; it has observations, "),
    "no dt": (lambda f: rewrite(f, dt=None), f"{FILE} lacks the field dt"),
    "another dt": (lambda f: rewrite(f, dt=0.5), "dt is 0.5 s, the policy was trained at "),
    "names in another order": (
        lambda f: rewrite(f, names=lambda x: x[::-1]),
        f"{FILE}: names[0] is 'y [m]', the policy reads 'x [m]' there",
    ),
    "more names": (lambda f: rewrite(f, names=np.array(["a", "b", "c"])), "names has 3 entries; the policy reads 2"),
    "an end in the middle": (
        lambda f: rewrite(f, terminations=put(4, True)),
        "terminations[4] is true, but the episode has 10 steps; log one file for each episode, or add the field "
        "fallen_observations if the robot was placed anew",
    ),
    "a cut in the middle": (
        lambda f: rewrite(f, truncations=put(4, True), fallen_observations=np.zeros((0, 2))),
        "truncations[4] is true, but the episode has 10 steps; log one file for each episode",
    ),
    "falls without their observations": (
        lambda f: rewrite(f, terminations=put(4, True), fallen_observations=np.zeros((2, 2))),
        "fallen_observations has shape (2, 2); it must be (1, 2): terminations has 1 falls before the last step",
    ),
    "no end": (
        lambda f: rewrite(f, terminations=put(-1, False), truncations=put(-1, False)),
        "the episode has no end: neither terminations[9] nor truncations[9] is true",
    ),
    "a gap in the shots": (
        lambda f: rewrite(f, shot=7),
        "are of the shots [0, 1, 7]; number them from 0 without a gap",
    ),
    "a shot not said": (lambda f: rewrite(f, shot=None), f"{FILE} lacks the field shot, which other episodes have"),
    "cut short": (lambda f: cut(f, 0.6), f"{FILE} is cut short, damaged, or not an .npz file"),
    "empty": (lambda f: cut(f, 0.0), f"{FILE} is cut short, damaged, or not an .npz file"),
    "damaged": (flip, f"{FILE}"),
    "one array": (lambda f: write(f, single()), f"{FILE} is a single array, not an .npz archive"),
    "a pickle": (lambda f: write(f, pickled()), f"{FILE} is not an .npz file, or a pickle, which is not read"),
    "noise": (lambda f: write(f, b"\x00\x01" * 200), f"{FILE} is not an .npz file"),
    "encrypted": (lambda f: write(f, npz(encrypt, rewards=single())), f"{FILE}: rewards is encrypted"),
    "a size that is none": (lambda f: write(f, npz(lie, rewards=single())), f"{FILE}: rewards has 2,147,483,647 bytes"),
    "a bomb": (lambda f: write(f, zeros()), f"{FILE}: rewards has 536,870,912 bytes unpacked; an episode has at most"),
    "unpacked by nothing": (
        lambda f: write(f, npz(lambda info: setattr(info, "compress_type", 77), rewards=single())),
        f"{FILE}: rewards is damaged (That compression method is not supported",
    ),
    **{
        what: (lambda f, header=header: write(f, npz(rewards=npy(header))), f"{FILE}: rewards is damaged")
        for what, header in HEADERS.items()
    },
    "names that are no UTF-8": (
        lambda f: rewrite(f, names=np.array([b"\xff", b"y [m]"])),
        "names holds bytes that are no",
    ),
    "names that a terminal obeys": (
        lambda f: rewrite(f, names=np.array(["\x1b[2J", "y [m]"])),
        r"names[0] is '\x1b[2J'",
    ),
    "names in a table": (
        lambda f: rewrite(f, names=np.array([["a", "b"]])),
        "names is <U1 of shape (1, 2); it must be",
    ),
    "names that are numbers": (
        lambda f: rewrite(f, names=np.array([1, 2])),
        "names is int64 of shape (2,); it must be",
    ),
    "half a shot": (lambda f: rewrite(f, shot=0.5), "shot is 0.5; it must be a whole number from 0 on"),
    "a shot far off": (lambda f: rewrite(f, shot=2**63 - 1), "shot is 9.22337e+18; it must be a whole number"),
    "other log-probabilities": (
        lambda f: rewrite(f, log_probabilities=put(3, -9.0)),
        f"{FILE}: log_probabilities[3] is -9, by the policy after 0 adaptations it is ",
    ),
}


@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_log_is_one_line_that_names_file_field_and_index(what, trained, log, capsys):
    spoil, message = BROKEN[what]
    spoil(log)
    output = log / "belief.pt"
    assert cli.main(["adapt", str(trained("maml")), "--rollouts", str(log), "--output", str(output)]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.err.startswith("error: ")
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "--rollouts", "."], "no run folder absent"),
        (["RUN"], "metarl adapt needs --rollouts"),
        (["RUN", "--rollouts", "absent"], "--rollouts: absent is not a folder"),
        (["RUN", "--rollouts", "file.npz"], "--rollouts: file.npz is a file"),
        (["RUN", "--rollouts", "outer"], "outer holds no .npz file; did you mean outer/robot?"),
        (["RUN", "--rollouts", "hollow"], "hollow holds no .npz file; log one file for each episode there"),
        (["RUN", "--rollouts", "robot", "--adaptations", "0"], "--adaptations is 0; it must be at least 1"),
        (["RUN", "--rollout", "robot"], "unknown option --rollout; did you mean '--rollouts'?"),
        (["RUN", "--rollouts", "minari:absent-v0"], "the Minari dataset 'absent-v0' cannot be read"),
        ([], "metarl adapt takes the folder of one run"),
    ],
)
def test_a_mistake_at_the_command_line_is_one_line(arguments, message, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("outer/robot", "hollow"):
        Path(name).mkdir(parents=True)
    Path("file.npz").touch()
    Path("outer/robot/e.npz").touch()
    run = str(trained("maml"))
    capsys.readouterr()
    assert cli.main(["adapt", *(run if a == "RUN" else a for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def on_policy_log(run: Run, folder: Path, explore: bool = True) -> Path:
    task = run.family.sample(1, np.random.default_rng(0))[0]
    result = evaluated(run, task, stream(1, "test"), explore=explore)
    save_trial(folder, run.agent, run.family, result.trial, [task], 1)
    return folder / "seed1_task000"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (None, None),
        (lambda a: a * 1.5, "vary more about the policy's mean"),
        (lambda a: a * 0.5, "vary less about the policy's mean"),
        (lambda a: np.clip(a, -2, 2), r"action \d is clipped, \d+ of its \d+ values are -?2"),
        (lambda a: a + 1.0, "vary more about the policy's mean"),
        (np.zeros_like, r"action 0 is clipped, \d+ of its \d+ values are 0"),
    ],
)
def test_actions_that_are_not_the_policys_own_are_found_without_log_probabilities(spoil, found, tmp_path):
    run = make_run("maml", HOPPER, envs=12, adaptations=1)
    folder = on_policy_log(run, tmp_path)
    for file in folder.glob("*.npz"):
        fields = dict(np.load(file))
        del fields["log_probabilities"]
        fields["actions"] = fields["actions"] if spoil is None else spoil(fields["actions"])
        np.savez(file, **fields)
    episodes = load_episodes(str(folder), run.family)
    if found is None:
        adapt(run, episodes, 2)
    else:
        with pytest.raises(UsageError, match=f"(?s){found}.* it is biased.*use them anyway with --off-policy"):
            adapt(run, episodes, 2)
        assert len(adapt(run, episodes, 2, off_policy=True).shots) == 2


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("motor", ["position", "position without a range", "velocity", "motor"])
@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_commands_are_not_taken_for_actions(name, motor, explore, tmp_path):
    """Whether the agent takes a gradient or remembers, acts with noise or without, and the ranges cut or not."""
    run = make_run(name, arm(tmp_path, motor), envs=12 if name in ("maml", "ppo") else 1, adaptations=1)
    if not run.agent.facts.adapts:
        pytest.skip("this agent does not adapt")
    if not explore and (run.agent.facts.needs_own_noise or name == "pearl"):
        pytest.skip("this agent adapts from episodes with noise")
    on_policy_log(run, tmp_path / "logs", explore)
    (log,) = (tmp_path / "logs").iterdir()
    assert adapt(run, load_episodes(str(log), run.family), 1).shots
    for file in log.glob("*.npz"):
        fields = dict(np.load(file))
        del fields["log_probabilities"]
        np.savez(file, **fields | {"actions": run.family.command(fields["actions"])})
    with pytest.raises(
        UsageError, match=r"the actions are motor commands; log what act\(\) returned, not what command\("
    ):
        adapt(run, load_episodes(str(log), run.family), 1)
    assert adapt(run, load_episodes(str(log), run.family), 1, off_policy=True).shots


def test_the_chi_square_statistic_is_as_far_off_as_its_tail_says():
    draws = np.random.default_rng(0).chisquare(12, 200_000)
    z = np.array([deviations(x, 12) for x in draws])
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert abs((np.abs(z) > 1.96).mean() - 0.05) < 0.003


def test_logs_of_a_memory_are_read_with_whatever_actions_they_hold():
    """What an agent remembers is data: no gradient is taken. By hand: the belief of slots fed one by one."""
    run = make_run("rl2", adaptations=1)
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(2, 4, 2)).astype(np.float32)
    rewards = rng.normal(size=3).astype(np.float32)
    fields = {"observations": observations, "actions": actions[:3] * 9, "rewards": rewards}
    flags = {"terminations": np.zeros(3, bool), "truncations": np.array([0, 0, 1], bool)}
    episode = check_episode({**fields, **flags}, "here", run.family, unnamed=True)
    belief = adapt(run, [episode], 1).belief
    network, memory = run.agent.network, {"hidden": torch.zeros(1, 8)}
    before = np.concatenate([np.zeros((1, 2)), actions[:3] * 9])
    for t in range(4):
        slot = [*observations[t], *before[t], rewards[t - 1] if t else 0.0, float(t == 0), float(t == 3)]
        _, memory = network(torch.tensor(slot, dtype=torch.float32)[None, None], memory)
    torch.testing.assert_close(belief.memory["hidden"][0], memory["hidden"].detach())


def test_unnumbered_episodes_are_in_the_order_of_the_numbers_in_their_names(tmp_path):
    family = make_run("rl2").family
    for k in (10, 2, 1, 0, 11):
        shape = (2, family.observation_size)
        steps = np.zeros((1, family.action_size)), np.full(1, float(k)), np.ones(1, bool)
        save_episode(tmp_path / f"episode_{k}.npz", np.zeros(shape), *steps, family)
    assert [float(e.rewards[0]) for e in load_episodes(str(tmp_path), family)] == [0, 1, 2, 10, 11]


def test_observations_are_read_as_the_policy_reads_them_clipped_where_the_env_clips(tmp_path):
    family = make_run("rl2").family
    (name, term), *more = family.observation.items()
    family = dataclasses.replace(family, observation={name: dataclasses.replace(term, clip=0.5), **dict(more)})
    seen = np.linspace(-3, 3, 4 * family.observation_size, dtype=np.float32).reshape(4, -1)
    steps = np.zeros((3, family.action_size)), np.zeros(3), np.array([False, True, False])
    save_episode(tmp_path / "a.npz", seen, *steps, family, fallen_observations=seen[:1])
    [episode] = load_episodes(str(tmp_path), family)
    bounds = family.observation_bounds
    assert bounds is not None and bounds[0] == 0.5
    np.testing.assert_array_equal(episode.observations, np.clip(seen, -bounds, bounds).astype(np.float32))
    np.testing.assert_array_equal(episode.fallen_observations, np.clip(seen[:1], -bounds, bounds).astype(np.float32))
    assert np.abs(seen[:, 0]).max() > 0.5 == np.abs(episode.observations[:, 0]).max()


def test_an_episode_is_read_back_whatever_its_file_is_called(tmp_path):
    family = make_run("rl2").family
    for k, name in enumerate(("episode_0", "episode_1.npz", "episode_2.5")):
        steps = np.zeros((1, family.action_size)), np.full(1, float(k)), np.ones(1, bool)
        save_episode(tmp_path / name, np.zeros((2, family.observation_size)), *steps, family)
    assert [float(e.rewards[0]) for e in load_episodes(str(tmp_path), family)] == [0, 1, 2]


@pytest.mark.thorough
def test_episodes_of_two_evaluations_are_not_mixed(trained, tmp_path, capsys):
    evaluate = ["evaluate", str(trained("rl2")), "evaluation.tasks=2", "--log-rollouts", str(tmp_path / "log")]
    assert cli.main([*evaluate, "evaluation.reset_memory=step"]) == 2
    assert "evaluation.reset_memory is step; leave it out" in capsys.readouterr().err
    assert cli.main([*evaluate, "evaluation.explore=false", "evaluation.explore_to_adapt=true"]) == 2
    assert "not the ones that are judged; add evaluation.explore=true" in capsys.readouterr().err
    assert cli.main(evaluate) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    capsys.readouterr()
    assert cli.main(evaluate) == 2 and "log holds episodes already; name a new folder" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}


def test_a_log_in_which_shots_are_not_said_is_one_shot_or_one_an_episode():
    def silent(i: int) -> LoggedEpisode:
        return LoggedEpisode(str(i), np.zeros((2, 2)), np.zeros((1, 2)), np.zeros(1), np.ones(1, bool))

    episodes = [silent(i) for i in range(3)]
    assert [len(shot) for shot in group(episodes, make_run("maml").agent)] == [3]
    assert [len(shot) for shot in group(episodes, make_run("rl2").agent)] == [1, 1, 1]
    numbered = [dataclasses.replace(silent(i), shot=0) for i in range(2)]
    with pytest.raises(UsageError, match="1 is of shot 0, as 0 is; .* number every episode as a shot of its own"):
        group(numbered, make_run("rl2").agent)


class TestMinari:
    @pytest.fixture
    def dataset(self, log, monkeypatch):
        """Minari's own episodes in a stand-in for its storage, which needs h5py or pyarrow."""
        data = pytest.importorskip("minari.dataset.episode_data")
        episodes = []
        for i, file in enumerate(sorted(log.glob("shot00*.npz"))):
            fields = np.load(file)
            names = ("observations", "actions", "rewards", "terminations", "truncations")
            episodes.append(data.EpisodeData(i, *(fields[name] for name in names), infos={}))
        stand_in = SimpleNamespace(load_dataset=lambda name: SimpleNamespace(iterate_episodes=lambda: iter(episodes)))
        monkeypatch.setitem(sys.modules, "minari", stand_in)
        return episodes

    @pytest.mark.thorough
    def test_its_episodes_adapt_as_the_files_do(self, dataset, log, trained):
        run = load_run(trained("maml"))
        ours, theirs = (adapt(run, load_episodes(s, run.family), 1) for s in (str(log), "minari:robot/log-v0"))
        torch.testing.assert_close(plain(ours.belief), plain(theirs.belief), rtol=0, atol=0)

    def test_shot_and_log_probabilities_are_among_its_infos(self, dataset, trained):
        """Beside those of the steps, Minari's collector records the infos of the reset."""
        family = load_run(trained("maml")).family
        steps = [len(episode.rewards) for episode in dataset]
        for i, episode in enumerate(dataset):
            logged = np.arange(-1.0, steps[i])
            episode.infos.update(shot=np.full(steps[i] + 1, i), log_probabilities=logged)
        dataset[1].infos["log_probabilities"] = np.arange(float(steps[1]))
        loaded = load_episodes("minari:robot/log-v0", family)
        assert [episode.shot for episode in loaded] == list(range(len(dataset)))
        for n, episode in zip(steps, loaded, strict=True):
            assert episode.log_probabilities.tolist() == list(range(n))
        dataset[1].infos["shot"][-1] = 7
        with pytest.raises(UsageError, match="log-v0 episode 1: infos has 2 numbers of a shot; an episode belongs to"):
            load_episodes("minari:robot/log-v0", family)

    def test_a_wrong_one_is_named_by_its_number(self, dataset, trained):
        dataset[1].observations[2, 0] = np.nan
        with pytest.raises(UsageError, match=r"minari:robot/log-v0 episode 1: observations\[2, 0\] \(x \[m\]\) is nan"):
            load_episodes("minari:robot/log-v0", load_run(trained("maml")).family)

    def test_without_it_the_message_says_what_to_install(self, trained, monkeypatch):
        monkeypatch.setitem(sys.modules, "minari", None)
        with pytest.raises(UsageError, match=r"needs Minari: pip install 'metarl-robotics\[minari\]'"):
            load_episodes("minari:robot/log-v0", load_run(trained("maml")).family)


class TestBeliefFiles:
    @pytest.fixture
    def belief(self, trained, log, capsys):
        assert cli.main(["adapt", str(trained("maml")), "--rollouts", str(log), "--output", str(log / "b.pt")]) == 0
        return log / "b.pt"

    def test_of_another_iteration_it_is_refused(self, belief, trained):
        run = load_run(trained("maml"))
        run.iteration += 1
        with pytest.raises(
            UsageError, match="adapted from iteration 2 of a policy, this is iteration 3; choose the --chec"
        ):
            run.start(belief=belief)

    def test_of_another_training_it_is_refused(self, belief, trained, tmp_path, tiny):
        arguments = ["--runs-dir", tmp_path, "--name", "other", "--agent", "maml", "--family", "point_goal", *tiny]
        arguments += ["training.iterations=2", "training.seed=2", "tracking.wandb=disabled", *small_options("maml")]
        assert cli.main(["train", *map(str, arguments)]) == 0
        with pytest.raises(UsageError, match="adapted from another policy, trained with another seed or trained anew"):
            load_run(tmp_path / "other").start(belief=belief)
        from metarl.runs import checkpoint

        state = checkpoint.load(belief)
        del state["policy"]
        checkpoint.save(belief, state)  # as a version before wrote it
        load_run(tmp_path / "other").start(belief=belief)

    def test_one_from_other_episodes_is_not_written_over(self, trained, log, tmp_path, capsys):
        other = Path(shutil.copytree(log, tmp_path / "other/log"))
        checkpoint = sorted((trained("maml") / "checkpoints").glob("*.pt"))[-1]
        for source, status in ((log, 0), (other, 2), (log, 0)):
            command = ["adapt", str(trained("maml")), "--rollouts", str(source), "--checkpoint", str(checkpoint)]
            assert cli.main(command) == status
        said = capsys.readouterr()
        assert f"is the belief adapted from {log}; choose another file by --output" in said.err
        assert said.out.count(f"--belief {trained('maml')}/beliefs/log.pt --checkpoint {checkpoint}\n") == 2

    def test_one_from_episodes_of_the_same_name_elsewhere_is_not_written_over(
        self, trained, log, tmp_path, monkeypatch, capsys
    ):
        for place, status in (("a", 0), ("b", 2), ("a", 0)):
            shutil.copytree(log, tmp_path / place / "relative", dirs_exist_ok=True)
            monkeypatch.chdir(tmp_path / place)
            assert cli.main(["adapt", str(trained("maml")), "--rollouts", "relative"]) == status
        assert f"is the belief adapted from {tmp_path}/a/relative; choose another" in capsys.readouterr().err
        monkeypatch.chdir(tmp_path)
        assert cli.main(["adapt", str(trained("maml")), "--rollouts", "a/relative"]) == 0

    def test_of_another_agent_it_is_refused(self, belief, trained):
        with pytest.raises(UsageError, match="is of the agent 'maml', this run of 'rl2'"):
            load_run(trained("rl2")).start(belief=belief)

    def test_of_other_sizes_it_is_refused(self, belief, trained):
        from metarl.runs import checkpoint

        run, state = load_run(trained("maml")), checkpoint.load(belief)
        for parameters in (torch.zeros(1, 3), torch.zeros(2, run.agent.theta.numel()), torch.zeros(4)):
            checkpoint.save(belief, {**state, "belief": {"parameters": parameters, "steps": 1}})
            with pytest.raises(UsageError, match="does not fit the agent of this run"):
                run.start(belief=belief)

    def test_a_file_that_is_none_is_refused(self, belief, trained):
        run = load_run(trained("maml"))
        checkpoint = sorted((trained("maml") / "checkpoints").glob("*.pt"))[0]
        with pytest.raises(UsageError, match="holds no belief, it lacks belief"):
            run.start(belief=checkpoint)
        with pytest.raises(UsageError, match=r"no belief file absent.pt; metarl adapt .* --rollouts DIR makes one"):
            run.start(belief="absent.pt")
        belief.write_bytes(belief.read_bytes()[:100])
        with pytest.raises(UsageError, match="cut short"):
            run.start(belief=belief)


def test_a_pipe_among_the_logs_is_not_waited_for(trained, log, capsys):
    os.mkfifo(log / "a.npz")
    assert cli.main(["adapt", str(trained("maml")), "--rollouts", str(log)]) == 2
    assert f"{log}/a.npz is a pipe or a device, no file" in capsys.readouterr().err


def test_names_may_be_bytes(trained, log):
    family = metarl.load(trained("maml")).family
    rewrite(log, names=np.array([name.encode() for name in family.observation_names]))
    assert load_episodes(str(log), family)


@pytest.mark.parametrize(("terminated", "truncated"), [(True, True), (True, False), (False, True)])
def test_an_episode_that_ends_and_is_cut_at_one_step_has_ended(terminated, truncated, trained, log):
    """As in Gymnasium, whose time limit cuts an episode also at the step that ends it: nothing is bootstrapped."""
    rewrite(log, terminations=put(-1, terminated), truncations=put(-1, truncated))
    family = metarl.load(trained("maml")).family
    episode = load_episodes(str(log), family)[1]
    assert episode.terminated.tolist() == [False] * (len(episode.rewards) - 1) + [terminated]
    rollout = assemble([episode], family)
    assert bool(rollout.terminated[-1, 0, 0]) == terminated and bool(rollout.truncated[-1, 0, 0]) != terminated


@pytest.mark.parametrize("name", ["maml", "ppo", "rl2"])
def test_a_belief_that_is_not_finite_is_neither_saved_nor_used_nor_exported(name, trained, log, tmp_path, capsys):
    run, output = metarl.load(trained(name)), tmp_path / "belief.pt"
    for file in log.glob("*.npz"):
        if name == "rl2" and "episode000" not in file.name:  # each episode is a shot of its own
            file.unlink()
    assert cli.main(["adapt", str(run.directory), "--rollouts", str(log), "--output", str(output), "--off-policy"]) == 0
    state = checkpoint.load(output)
    output.unlink()

    def spoil(part):
        """The first tensor of numbers with one that is none."""
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                value.view(-1)[0] = torch.nan
                return True
            if spoil(value):
                return True
        return False

    assert spoil(state["belief"])
    spoilt = tmp_path / "spoilt.pt"
    checkpoint.save(spoilt, state)
    capsys.readouterr()
    assert cli.main(["export", str(run.directory), "--belief", str(spoilt)]) == 2
    assert f"the belief {spoilt} is not finite and is not used" in capsys.readouterr().err
    belief = beliefs.load(run.agent, state["belief"])
    with pytest.raises(UsageError, match="the belief adapted from the logs is not finite and is not saved"):
        save_belief(output, run, belief, 1, "the logs")
    with pytest.raises(UsageError, match="the policy is not finite, and is not exported"):
        export_run(run, output, belief)
    assert not output.exists()
