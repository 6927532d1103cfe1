"""Whole runs from the command line: killed, ended, resumed, recorded, evaluated."""

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import metarl
from metarl.agents.maml.maml import Maml
from metarl.agents.registry import AGENTS, PAPERS
from metarl.agents.rl2.papers import RL2_PAPERS
from metarl.agents.rma.papers import RMA_PAPERS
from metarl.cli import app as cli
from metarl.cli import train as train_command
from metarl.config import RunConfig, load_config, preset, with_settings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.errors import UsageError
from metarl.runs.checkpoint import CheckpointStore, digest
from metarl.runs.run import Run, build, require_startable, start_run
from metarl.runs.tracking import read_metrics
from metarl.training import loop
from metarl.training.loop import REFUSALS
from tests.small_agents import small_options

TIMING = ("env_steps_per_s", "time/collect", "time/update")
"""Metrics that differ from one run to the next."""


def numbers(run_dir: Path):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(run_dir)]


def train(*arguments) -> int:
    return cli.main(["train", *map(str, arguments), "tracking.wandb=disabled"])


@pytest.fixture
def start(environment, tmp_path, tiny):
    """Start `metarl train` in the background; returns the process once a number of iterations are recorded."""
    processes = []

    def start(name: str, iterations: int, *arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "metarl",
            "train",
            "--name",
            name,
            *tiny,
            *arguments,
            "tracking.wandb=disabled",
        ]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )
        processes.append(process)
        record = tmp_path / "runs" / name / "metrics.jsonl"
        deadline = time.monotonic() + 600
        while not record.exists() or record.read_text().count("\n") < iterations:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no iteration after ten minutes"
            time.sleep(0.01)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


LIKE_RL2 = ("varibad", "rma", "estimator", "distilled", "recurrent_ppo", "prototype")
"""Agents whose training goes through what others' does: their test is one of the slow ones."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "agent",
    [
        *(pytest.param(name, marks=pytest.mark.slow) if name in LIKE_RL2 else name for name in AGENTS),
        *(pytest.param(name, marks=pytest.mark.slow) for name in (*RL2_PAPERS, *RMA_PAPERS)),
    ],
)
def test_killed_and_resumed_a_run_gives_the_numbers_of_an_uninterrupted_one(agent, start, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    family = "half_cheetah_mass" if agent == "rl2" else "point_goal"
    small = small_options(PAPERS[agent].agent if agent in PAPERS else agent)
    what = ["--agent", agent, "--family", family, *small, "training.checkpoint_every=4"]
    compare_killed_with_whole(start, tmp_path, what, tiny)


@pytest.mark.slow
def test_killed_while_its_student_plays_a_run_goes_on_alike(start, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = ["--agent", "rma", "--family", "point_goal", *small_options("rma"), "agent.teacher_updates=2"]
    compare_killed_with_whole(start, tmp_path, [*what, "training.checkpoint_every=4"], tiny)


@pytest.mark.slow
@pytest.mark.parametrize("distil_updates", [6, 100000])
def test_killed_while_it_imitates_or_thereafter_a_pupil_goes_on_alike(
    distil_updates, start, tmp_path, tiny, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    oracle = ["--agent", "ppo", "--family", "point_goal", "agent.hidden_sizes=8", "training.reveal_task=true"]
    assert train("--name", "oracle", *tiny, *oracle, "training.iterations=2") == 0
    small = [option for option in small_options("distilled") if "distil_updates" not in option]
    what = ["--agent", "distilled", "--family", "point_goal", *small, "agent.teacher=runs/oracle"]
    what += [f"agent.distil_updates={distil_updates}", "agent.critic_updates=3", "training.checkpoint_every=4"]
    compare_killed_with_whole(start, tmp_path, what, tiny)


def compare_killed_with_whole(start, tmp_path: Path, what: list[str], tiny: list[str]) -> None:
    """Kill a run, resume it, and train another one without a stop: the same numbers and the same agent."""
    process = start("killed", 7, *what, "training.iterations=100000")
    process.kill()
    process.communicate()
    killed = tmp_path / "runs/killed"
    last = CheckpointStore(killed / "checkpoints").load("last")[1]["iteration"]
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 100001, "env_st')  # a line that the kill cut short
    goal = last + 6
    assert train("--resume", "runs/killed", f"training.iterations={goal}") == 0
    assert train("--name", "whole", *tiny, *what, f"training.iterations={goal}") == 0
    assert numbers(killed) == numbers(tmp_path / "runs/whole")
    assert [line["iteration"] for line in numbers(killed)] == list(range(1, goal + 1))
    theirs = CheckpointStore(tmp_path / "runs/whole/checkpoints").load("last")[1]
    ours = CheckpointStore(killed / "checkpoints").load("last")[1]
    assert digest(ours["agent"]) == digest(theirs["agent"])


@pytest.mark.thorough
def test_a_curriculum_climbs_and_a_resumed_one_goes_on_where_it_was(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = ["--family", "half_cheetah_terrain", *tiny, "training.curriculum=true", "family.kinds=flat,rough"]
    what += ["family.promote_at=-1000", "family.demote_at=-2000", "training.checkpoint_every=2"]
    assert train("--name", "whole", *what, "training.iterations=4") == 0
    assert train("--name", "halved", *what, "training.iterations=2") == 0
    assert train("--resume", "runs/halved", "training.iterations=4") == 0
    assert numbers(tmp_path / "runs/halved") == numbers(tmp_path / "runs/whole")
    levels = [{k: v for k, v in line.items() if "curriculum/" in k} for line in numbers(tmp_path / "runs/whole")]
    assert set(levels[0].values()) == {0} and max(levels[-1].values()) > 0.2


@pytest.mark.parametrize("split", [False, True])
def test_the_best_checkpoint_of_a_curriculum_is_of_its_hardest_tasks(split: bool, tmp_path, tiny, monkeypatch):
    """By returns and levels that are set by hand, in one go and resumed: the highest return is on the easiest."""
    returns, levels = (8.0, 7.0, 7.5, 6.5, 9.0), (0.0, 0.4, 0.4, 0.4, 0.2)

    def by_hand(run: Run, metrics: dict[str, float]) -> bool:
        metrics["return/after"] = returns[run.iteration - 1]
        metrics.update({name: levels[run.iteration - 1] for name in metrics if name.startswith("curriculum/")})
        return split and run.iteration == 3

    settings = {name: int(value) for name, value in (option.split("=") for option in tiny)}
    settings |= {"evaluation.seeds": (1,), "training.iterations": 5, "training.checkpoint_every": 1}
    settings |= {"training.curriculum": True, "family.kinds": ("flat", "rough"), "tracking.wandb": "disabled"}
    config = with_settings(preset("maml", "half_cheetah_terrain"), settings)
    folder = start_run(config, tmp_path, "r")
    for resume in (False, True)[: 1 + split]:
        loop.train(config, folder, resume, by_hand)
    last, best = (CheckpointStore(folder / "checkpoints").load(which)[1] for which in ("last", "best"))
    assert (last["iteration"], best["iteration"]) == (5, 3)
    assert (last["best_level"], last["best_return"]) == (0.4, 7.5)


@pytest.mark.parametrize("stops", [(), (1,), (1, 3)])
def test_the_best_checkpoint_of_a_stopped_run_is_that_of_an_uninterrupted_one(stops, tmp_path, tiny):
    """By returns that are set by hand: the highest are at stops between two checkpoints that are due."""
    returns = (8.0, 6.0, 9.0, 7.0, 5.0)

    def by_hand(run: Run, metrics: dict[str, float]) -> bool:
        metrics["return/after"] = returns[run.iteration - 1]
        return run.iteration in stops

    settings = {name: int(value) for name, value in (option.split("=") for option in tiny)}
    settings |= {"evaluation.seeds": (1,), "training.iterations": 5, "training.checkpoint_every": 2}
    config = with_settings(preset("maml", "point_goal"), settings | {"tracking.wandb": "disabled"})
    folder = start_run(config, tmp_path, "r")
    store = CheckpointStore(folder / "checkpoints")
    for k in range(1 + len(stops)):
        loop.train(config, folder, k > 0, by_hand)
        if k == 0 and stops:
            assert store.load("best")[1]["iteration"] == 1  # there is no other yet
    last, best = (store.load(which)[1] for which in ("last", "best"))
    assert (last["iteration"], best["iteration"], last["best_return"]) == (5, 4, 7.0)


def test_a_curriculum_of_a_family_without_difficulty_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train("--family", "point_goal", "training.curriculum=true") == 2
    assert "training.curriculum: family 'point_goal' has no curriculum" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
def test_sigterm_ends_a_run_with_a_checkpoint_of_its_last_iteration(start, tmp_path):
    process = start(
        "ended", 2, "--family", "point_goal", "training.iterations=100000", "training.checkpoint_every=100000"
    )
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "resume with metarl train --resume runs/ended" in output
    assert errors == ""
    recorded = read_metrics(tmp_path / "runs/ended")[-1]["iteration"]
    assert CheckpointStore(tmp_path / "runs/ended/checkpoints").load("last")[1]["iteration"] == recorded


@pytest.mark.thorough
def test_ctrl_c_loses_no_iteration_and_a_second_one_does_not_wait(start, tmp_path):
    long = ("training.iterations=100000", "training.checkpoint_every=100000")
    process = start("stopped", 2, "--family", "point_goal", *long)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors == (
        "stopping after this iteration; Ctrl-C again stops at once\n"
        "interrupted; resume it with: metarl train --resume runs/stopped\n"
    )
    recorded = read_metrics(tmp_path / "runs/stopped")[-1]["iteration"]
    assert CheckpointStore(tmp_path / "runs/stopped/checkpoints").load("last")[1]["iteration"] == recorded
    process = start("at_once", 1, "--family", "point_goal", *long, "--agent", "rl2", "training.adaptations=300")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None and process.stderr.readline().startswith("stopping after this iteration")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors == "interrupted\n"
    assert not CheckpointStore(tmp_path / "runs/at_once/checkpoints").paths()


@pytest.mark.thorough
def test_ctrl_c_that_ends_the_reader_of_its_output_too_loses_no_iteration(start, tmp_path):
    """As in `metarl train ... 2>&1 | tee log`."""
    process = start(
        "piped", 2, "--family", "point_goal", "training.iterations=100000", "training.checkpoint_every=1000"
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=600)
    recorded = read_metrics(tmp_path / "runs/piped")[-1]["iteration"]
    assert CheckpointStore(tmp_path / "runs/piped/checkpoints").load("last")[1]["iteration"] == recorded


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A finished run of MAML on point_goal."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["--family", "point_goal", *tiny, "training.iterations=4", "training.checkpoint_every=2"]
    assert train("--runs-dir", folder, "--name", "r", *arguments) == 0
    return folder / "r"


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "r"))


def test_a_run_folder_is_complete(finished):
    assert {p.name for p in finished.iterdir()} == {"config.yaml", "metrics.jsonl", "checkpoints", "evaluation"}
    names = {p.name for p in (finished / "checkpoints").iterdir()}
    assert names == {"iteration_000002.pt", "iteration_000004.pt", "best.pt"}
    lines = read_metrics(finished)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert {"env_steps", "return/before", "return/after", "gain", "faults", *TIMING} <= lines[0].keys()
    assert any(key.startswith("agent/") for key in lines[0]) and any(key.startswith("reward/") for key in lines[0])
    assert list((finished / "evaluation").glob("*.json")) and list((finished / "evaluation").glob("*.png"))


def test_a_run_is_repeated_by_its_config(finished, tmp_path):
    assert train("--config", finished / "config.yaml", "--runs-dir", tmp_path, "--name", "again") == 0
    assert numbers(tmp_path / "again") == numbers(finished)
    assert load_config(tmp_path / "again/config.yaml") == load_config(finished / "config.yaml")


def test_a_checkpoint_cut_short_is_named_and_the_one_before_it_used(run_dir, finished, capsys):
    broken = run_dir / "checkpoints/iteration_000004.pt"
    os.truncate(broken, broken.stat().st_size // 2)
    assert train("--resume", run_dir) == 0
    output, errors = capsys.readouterr()
    assert f"warning: checkpoint {broken} is cut short" in errors
    assert "iteration 3/4" in output and "iteration 2/4" not in output
    assert numbers(run_dir) == numbers(finished)


def test_a_foreign_checkpoint_is_refused_and_the_run_left_as_it_was(run_dir, tmp_path, tiny, capsys):
    other = ["--family", "half_cheetah_direction", *tiny, "training.iterations=1"]
    assert train("--runs-dir", tmp_path, "--name", "other", *other) == 0
    foreign = run_dir / "checkpoints/iteration_000009.pt"
    shutil.copy(tmp_path / "other/checkpoints/iteration_000001.pt", foreign)
    before = (run_dir / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert train("--resume", run_dir) == 2
    message = capsys.readouterr().err
    assert f"checkpoint {foreign} is of the family 'half_cheetah_direction', this run of 'point_goal'" in message
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_an_agent_of_another_shape_is_refused(run_dir, capsys):
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("  - 64\n", "  - 32\n"))
    assert train("--resume", run_dir) == 2
    assert "does not fit the agent of this run" in capsys.readouterr().err


def test_an_oracle_that_was_told_the_task_in_another_form_is_refused(tmp_path, tiny, capsys):
    """Versions before told raw numbers, and wrote no form: half_cheetah_mass has as many observations now as then."""
    family = ["--family", "half_cheetah_mass", *tiny, "training.iterations=1", "training.reveal_task=true"]
    assert train("--runs-dir", tmp_path, "--name", "oracle", *family) == 0
    run, store = tmp_path / "oracle", CheckpointStore(tmp_path / "oracle/checkpoints")
    assert metarl.load(run).config.training.reveal_task
    _, state = store.load("last")
    del state["told"]
    store.save(state, 2, best=False)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run)]) == 2
    message = capsys.readouterr().err
    assert "is of an oracle (training.reveal_task) that was told the task in another form" in message
    assert "train it again" in message and "Traceback" not in message


def test_a_run_without_a_checkpoint_is_named(run_dir, capsys):
    shutil.rmtree(run_dir / "checkpoints")
    assert train("--resume", run_dir) == 2
    assert f"no checkpoint in {run_dir}/checkpoints" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run_dir)]) == 2
    assert f"no checkpoint in {run_dir}/checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["agent.inner_lr=0.2", "training.tasks=3", "training.seed=9", "family.horizon=5"])
def test_what_would_change_the_numbers_cannot_change_on_resume(run_dir, override, capsys):
    assert cli.main(["train", "--resume", str(run_dir), override]) == 2
    assert "cannot change when a run is resumed; start a new run for it" in capsys.readouterr().err


def test_a_resume_that_is_refused_leaves_the_config_as_it_was(run_dir, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = (run_dir / "config.yaml").read_text()
    assert cli.main(["train", "--resume", str(run_dir), "training.device=cuda"]) == 2
    assert "torch sees no CUDA device; set training.device to auto or cpu" in capsys.readouterr().err
    assert (run_dir / "config.yaml").read_text() == before
    assert train("--resume", run_dir, "training.iterations=5") == 0
    assert load_config(run_dir / "config.yaml").training.iterations == 5


def test_a_policy_that_is_no_longer_finite_ends_the_run_and_keeps_the_checkpoints(run_dir, monkeypatch, capsys):
    def diverge(self, trial, generator):
        self.theta.fill_(torch.nan)
        return {}

    before = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
    monkeypatch.setattr(Maml, "meta_update", diverge)
    for every, message in (
        (1, "iteration 5: the agent's parameters are no longer finite"),
        (9, "iteration 6: every simulation"),
    ):
        assert train("--resume", run_dir, "training.iterations=9", f"training.checkpoint_every={every}") == 1
        assert f"error: {message}" in capsys.readouterr().err
        assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == before


@pytest.mark.thorough
def test_updates_that_are_refused_one_after_the_other_are_told_of(tmp_path, monkeypatch, capsys):
    """Steps that are always too long, for one iteration less than it takes, and for one more."""
    monkeypatch.chdir(tmp_path)
    options = "--family point_goal agent.outer=promp agent.promp_lr=1e6"
    sizes = "family.horizon=5 training.tasks=2 training.envs_per_task=2 evaluation.tasks=2"
    for iterations, times in ((REFUSALS - 1, 0), (REFUSALS + 1, 1)):
        assert train(*options.split(), *sizes.split(), f"training.iterations={iterations}") == 0
        assert capsys.readouterr().out.count(f"the last {REFUSALS} updates were refused") == times


@pytest.mark.thorough
def test_a_full_disk_ends_the_run_and_loses_nothing(run_dir, metarl):
    """The limit on a file's size is what a process sees of a disk with so much room left."""
    size = 8000
    done = metarl(
        "train",
        "--resume",
        run_dir,
        "training.iterations=8",
        "tracking.wandb=disabled",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == 1
    checkpoint = rf"{re.escape(str(run_dir))}/checkpoints/(best|iteration_000006)\.pt"
    assert re.search(f"error: cannot write {checkpoint}: File too large", done.stderr)
    assert done.stderr.count("\n") == 1
    assert metarl_iteration(run_dir) == 4
    assert train("--resume", run_dir, "training.iterations=6") == 0
    assert metarl_iteration(run_dir) == 6


def metarl_iteration(run_dir: Path) -> int:
    return metarl.load(run_dir).iteration


@pytest.mark.thorough
def test_evaluate_by_hand_and_by_api(run_dir, capsys):
    assert cli.main(["evaluate", str(run_dir), "--checkpoint", "best", "evaluation.adaptations=2"]) == 0
    assert "held-out tasks" in capsys.readouterr().out
    saved = [json.loads(p.read_text()) for p in (run_dir / "evaluation").glob("*.json")]
    assert 2 in [s["evaluation"]["adaptations"] for s in saved]
    checkpoint = run_dir / "checkpoints/iteration_000002.pt"
    run = metarl.load(run_dir, checkpoint)
    assert (run.iteration, run.config) == (2, load_config(run_dir / "config.yaml"))
    assert metarl.evaluate(run).returns.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "absent.pt"], "no checkpoint absent.pt"),
        (["evaluation.tasks=1"], "evaluation.tasks is 1; it must be at least 2"),
        (["training.tasks=1"], "unknown option --training.tasks"),
        (["--threads", "-1"], "training.threads is -1; it must be at least 0"),
    ],
)
def test_evaluate_refuses_by_name(run_dir, arguments, message, capsys):
    assert cli.main(["evaluate", str(run_dir), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_python_api_trains(tmp_path, tiny):
    config, _ = train_command.parse(
        ["--family", "point_goal", *tiny, "training.iterations=1", "tracking.wandb=disabled"]
    )
    run = metarl.train(config, name="api", runs_dir=tmp_path)
    assert (run.directory, run.iteration) == (tmp_path / "api", 1)
    assert metarl.resume(run.directory).iteration == 1


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_says_so_and_is_left_as_it_is(run_dir, monkeypatch, capsys):
    monkeypatch.chdir(run_dir.parent)
    before = contents(run_dir)
    for extra in ([], ["training.iterations=3"], ["evaluation.tasks=3"]):
        assert train("--resume", "r", *extra) == 0
        output = capsys.readouterr().out
        assert output.startswith(
            "r is finished, at iteration 4, and is left as it is; train it further by: metarl train"
        )
        assert output.endswith("--resume r training.iterations=8\n")
    assert metarl.resume("r").iteration == 4
    assert "r is finished" in capsys.readouterr().out
    assert contents(run_dir) == before
    shutil.rmtree(run_dir / "evaluation")  # it was killed before the end
    assert train("--resume", "r") == 0
    assert any((run_dir / "evaluation").glob("*.json")) and "is finished" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "module", "function"),
    [
        ("render", "reporting.films", "render_run"),
        ("export", "deployment.export", "to_onnx"),
        ("evaluate", "reporting.judge", "evaluate_agent"),
    ],
)
def test_only_what_trains_is_gone_on_with(command, module, function, run_dir, monkeypatch, capsys):
    pytest.importorskip("onnx")

    failures = [KeyboardInterrupt(), KeyError("x"), OSError(5, "Input/output error")]

    def fail(*arguments, **keywords):
        raise failures.pop()

    monkeypatch.setattr(f"metarl.{module}.{function}", fail)
    for status in (1, 1, 130):
        assert cli.main([command, str(run_dir)]) == status
        message = capsys.readouterr().err
        assert "resume" not in message and message.count("\n") == 1


@pytest.mark.thorough
def test_the_python_api_takes_runs_as_the_command_line_does(run_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    run_dir.rename(tmp_path / "runs/first")
    monkeypatch.chdir(tmp_path)
    for given in ("first", "runs/first", Path("runs/first"), tmp_path / "runs/first"):
        assert metarl.load(given).directory.resolve() == tmp_path / "runs/first"
    assert metarl.evaluate("first", bootstrap_samples=5).returns.shape == (1, 2, 2)
    assert [agent.label for agent in metarl.compare("first", train_gap=False, output="c").agents] == ["first"]
    assert metarl.write_report("first", output="page", videos=False).html.is_file()
    for function in (metarl.load, metarl.evaluate, metarl.compare, metarl.write_report, metarl.resume):
        with pytest.raises(UsageError, match="no run folder frist; did you mean 'first'"):
            function("frist")
    with pytest.raises(UsageError, match="did you mean 'first'"):
        metarl.compare(["first", Path("runs/frist")])
    with pytest.raises(UsageError, match="--name is 'a/b'; give the name of one folder"):
        metarl.train(load_config(Path("runs/first/config.yaml")), name="a/b")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (HalfCheetahMassSettings(horizon=20, faults=("dead",), fault_onset=(60, 80)), "fault"),
        (HalfCheetahMassSettings(horizon=20, changes=1, change_gap=(60, 80)), "change"),
    ],
)
def test_a_fault_or_a_change_that_never_begins_is_refused(settings, what, tmp_path):
    config = dataclasses.replace(preset("rl2", "half_cheetah_mass"), family=settings)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, adaptations=1, device="cpu"))

    def episodes(training: int, evaluation: int) -> RunConfig:
        return dataclasses.replace(
            config,
            training=dataclasses.replace(config.training, adaptations=training - 1),
            evaluation=dataclasses.replace(config.evaluation, adaptations=evaluation - 1),
        )

    for which, late in (("training", episodes(3, 4)), ("evaluation", episodes(4, 3))):
        said = f"no {what} ever begins: the first comes after 60 control steps .* of {which} has 60 .*{which}.adapt"
        with pytest.raises(UsageError, match=said):
            start_run(late, tmp_path / "runs", "r")
        assert not list(tmp_path.iterdir())
    require_startable(episodes(4, 4), build(config)[0])
