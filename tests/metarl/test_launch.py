"""Jobs for Slurm: their scripts, read as Slurm reads them; and jobs that run here, without Slurm, and are preempted."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarl.cli import app as cli
from metarl.cli import train as train_command
from metarl.errors import UsageError
from metarl.launching import launch
from metarl.launching.launch import Launch, Work, file_system, minutes_of, port_of
from metarl.launching.slurm import submit
from metarl.runs.tracking import read_metrics
from metarl.sweeps.file import load_sweep
from metarl.sweeps.study import Study

ROOT = Path(__file__).parents[2]
TIMING = ("env_steps_per_s", "time/collect", "time/update")


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    """pytest's folders may be in memory."""
    monkeypatch.setattr(launch, "file_system", lambda path: "nfs4")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder without Slurm, whose processes import this metarl."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / name).chmod(0o755)


def directives(script: Path) -> dict[str, str]:
    """What sbatch reads in a script: the #SBATCH lines before the first command."""
    found = {}
    for line in script.read_text().splitlines():
        if line.startswith("#SBATCH"):
            [word] = shlex.split(line)[1:]
            name, _, value = word.partition("=")
            found[name] = value
        elif line and not line.startswith("#"):
            break
    return found


def test_a_dry_run_writes_the_script_and_what_each_node_runs(here, tiny, capsys):
    enough = ["training.tasks=6", *(own for own in tiny if "training.tasks" not in own)]
    options = "--time 1-2:00:30 --nodes 3 --gpus-per-node 2 --cpus-per-task 16 --mem 64G --partition gpu --account a b"
    options = [*shlex.split(options.removesuffix(" a b")), "a b", "--grace", "300", "--max-restarts", "7", "--dry-run"]
    work = ["train", "--family", "point_goal", "--name", "my run", *enough]
    assert cli.main(["launch", "slurm", *options, "--", *work]) == 0
    folder = here / "runs" / "slurm" / "my run" / "dry_run"
    script, said = folder / "submission.sh", capsys.readouterr().out
    assert directives(script) == {
        "--job-name": "my run",
        "--time": str(26 * 60 + 1),
        "--nodes": "3",
        "--ntasks-per-node": "1",
        "--gpus-per-node": "2",
        "--cpus-per-task": "16",
        "--mem": "64G",
        "--partition": "gpu",
        "--account": "a b",
        "--signal": "USR2@300",
        "--requeue": "",
        "--open-mode": "append",
        "--output": str(folder.parent / "%j_0_log.out"),
        "--error": str(folder.parent / "%j_0_log.err"),
    }
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)
    [step] = [shlex.split(line) for line in script.read_text().splitlines() if line.startswith("srun")]
    assert "--cpus-per-task=16" in step
    assert step[step.index(sys.executable) :] == [
        sys.executable,
        "-u",
        "-m",
        "submitit.core._submit",
        str(folder.parent),
    ]
    lines = (folder / "commands.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["node 0", "node 1", "node 2"]
    for node, line in enumerate(lines):
        words = shlex.split(line.partition(": ")[2])
        run = ["-m", "metarl", "train", "--resume", str(here / "runs" / "my run")]
        assert words[:3] == [sys.executable, "-m", "torch.distributed.run"] and words[-5:] == run
        assert set(words[3:-5]) == {
            "--nproc-per-node=2",
            "--nnodes=3",
            "--max-restarts=7",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=HOST:PORT",
            "--rdzv-id=JOB",
            f"--rdzv-conf=is_host={'true' if node == 0 else 'false'}",
        }
        assert line in said
    assert script.read_text() in said and "nothing was submitted" in said
    assert not (here / "runs" / "my run").exists()


def test_one_process_needs_no_torchrun_and_several_of_one_node_no_meeting():
    alone = Work(("train", "--resume", "r")).command(0, "a", 1, "2")
    assert alone == [sys.executable, "-m", "metarl", "train", "--resume", "r"]
    together = Work(("train",), ranks=2, restarts=1).command(0, "a", 1, "2")
    assert together[3:] == ["--nproc-per-node=2", "--max-restarts=1", "--standalone", "-m", "metarl", "train"]
    sweep = Work(("sweep", "f.yaml"), nodes=2, together=False)
    assert (
        sweep.command(0, "a", 1, "2")
        == sweep.command(1, "a", 1, "2")
        == [sys.executable, "-m", "metarl", *sweep.arguments]
    )


def test_all_nodes_of_a_job_meet_at_one_port_below_the_ephemeral_ones():
    ports = {job: port_of(job) for job in ("1", "4711", "4712", "4711_3", "123456789")}
    assert len(set(ports.values())) == len(ports) and all(1024 < port < 32768 for port in ports.values())


TIMES = {"90": 90, "0:30": 1, "90:30": 91, "4:00:00": 240, "2-00": 2880, "1-2:30": 1590, "1-0:0:1": 1441}


@pytest.mark.parametrize("text", TIMES)
def test_times_are_read_as_slurm_reads_them(text):
    assert minutes_of(text) == TIMES[text]


@pytest.mark.parametrize("text", ["0", "4h", "-1", "1:2:3:4", "0:0:0", "1-", "infinite", ""])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="use Slurm's format"):
        minutes_of(text)


def test_a_file_system_is_that_of_the_nearest_mount(tmp_path):
    table = tmp_path / "mounts"
    table.write_text("/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nhost:/s /tmp/our\\040home nfs4 rw 0 0\n")
    kinds = {"/": "ext4", "/home/a": "ext4", "/tmp": "tmpfs", "/tmp/a/b": "tmpfs", "/tmp/our home/a": "nfs4"}
    assert {path: file_system(Path(path), table) for path in kinds} == kinds
    assert file_system(Path("/a"), tmp_path / "none") == ""


TRAIN = "-- train --family point_goal --name r"
LATE = "family.horizon=20 family.faults=[dead] family.fault_onset=[600,800]"
MISTAKES = {
    "": "metarl launch takes: slurm [OPTIONS] -- train|sweep ...",
    f"slrum {TRAIN}": "metarl launch takes: slurm [OPTIONS] -- train|sweep ..., got slrum",
    "slurm --time 10": "name the command to launch after --: train ... or sweep ...",
    "slurm --time 10 -- trian": "got 'trian'; did you mean 'train'?",
    f"slurm {TRAIN}": "--time is missing; give the job's time limit, such as --time 4:00:00",
    f"slurm --time 4h {TRAIN}": "--time is '4h'; use Slurm's format",
    f"slurm --time 2 --grace 120 {TRAIN}": "--grace is 120 s and --time is not longer",
    f"slurm --time 10 --nodes 0 {TRAIN}": "--nodes is 0; it must be at least 1",
    f"slurm --time 10 --nodes two {TRAIN}": "--nodes is 'two', text; it must be a whole number",
    f"slurm --time 10 --partitoin a {TRAIN}": "unknown option --partitoin; did you mean '--partition'?",
    f"slurm --time 10 training.tasks=3 {TRAIN}": "unknown option --training.tasks; this command takes no settings",
    f"slurm --time 10 {TRAIN}": "no sbatch on PATH: this machine cannot submit jobs to Slurm; launch from a login node",
    f"slurm --time 10 --dry-run {TRAIN} training.tasks=0": "training.tasks is 0; it must be at least 1",
    "slurm --time 10 --dry-run -- train --family point_gaol": "unknown family 'point_gaol'; did you mean 'point_goal'",
    "slurm --time 10 --dry-run -- train --family point_goal training.curriculum=true": (
        "training.curriculum: family 'point_goal' has no curriculum"
    ),
    f"slurm --time 10 --dry-run -- train --family half_cheetah_mass {LATE}": "family: no fault ever begins: the first",
    "slurm --time 10 --dry-run -- sweep curriculum.yaml": "family 'point_goal' has no curriculum",
    "slurm --time 10 --dry-run -- sweep nonsense.yaml": "report.parameters: family 'point_goal' has no parameter 'non",
    "slurm --time 10 --dry-run -- sweep ppo.yaml --ranks 2": "learns in one process, not in 2",
    "slurm --time 10 --dry-run -- sweep late.yaml": "family: no fault ever begins: the first",
    "slurm --time 10 --dry-run -- train --name a/b": "--name is 'a/b'; give the name of one folder",
    "slurm --time 10 --dry-run -- train --name %j": "Slurm takes % for a pattern",
    "slurm --time 10 --dry-run -- train --resume none": "none",
    "slurm --time 10 --dry-run -- sweep none.yaml": "no sweep file none.yaml",
    "slurm --time 10 --dry-run -- sweep s.yaml --report": "--report of metarl sweep cannot be launched; run",
    "slurm --time 10 --dry-run --ranks-per-node 2 -- sweep s.yaml": "--ranks-per-node is for metarl train; for a sweep",
}
SWEEPS = {
    "s.yaml": "",
    "curriculum.yaml": "family: point_goal, training.curriculum: true",
    "late.yaml": "family: half_cheetah_mass, family.horizon: 20, family.faults: [dead], family.fault_onset: [600, 800]",
    "nonsense.yaml": "family: point_goal",
    "ppo.yaml": "agent: ppo, family: point_goal",
}
SWEPT = {
    "nonsense.yaml": "factors: {agent.inner_lr: [0.1, 0.2]}\nreport: {parameters: [nonsense]}",
    "ppo.yaml": "factors: {family.goal_range: [0.1, 0.2]}",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line(text, here, capsys):
    for name, base in SWEEPS.items():
        factors = SWEPT.get(name, "factors: {agent.inner_lr: [0.1, 0.2]}")
        (here / name).write_text(f"base: {{{base}}}\n{factors}")
    assert cli.main(["launch", *text.split()]) == 2
    output, message = capsys.readouterr()
    assert MISTAKES[text] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert output == "" and not (here / "runs").exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_sweep_in_the_folder_of_another_is_refused_before_it_waits(dry, here, capsys):
    for name in ("srun", "sbatch"):
        program(here, name, "exit 1")
    sweep, other = "factors: {{agent.inner_lr: [{}]}}".format, here / "s.yaml"
    other.write_text(sweep(0.1))
    Study(load_sweep(other), here / "runs" / "s")
    other.write_text(sweep(0.2))
    assert cli.main(["launch", "slurm", "--time", "10", *dry, "--", "sweep", "s.yaml"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "holds the results of another sweep: factors.agent.inner_lr was [0.1], is [0.2]. Undo the change" in message
    assert not (here / "runs" / "slurm").exists()


def test_what_is_refused_of_a_new_run_alone_is_left_to_the_variants_of_a_sweep_that_varies_it(here, capsys):
    late = SWEEPS["late.yaml"]
    (here / "s.yaml").write_text(f"base: {{{late}}}\nfactors: {{evaluation.adaptations: [1, 99]}}")
    assert cli.main(["launch", "slurm", "--time", "10", "--dry-run", "--", "sweep", "s.yaml"]) == 0


def test_a_folder_that_no_node_sees_is_refused(here, capsys, monkeypatch):
    monkeypatch.setattr(launch, "file_system", lambda path: "tmpfs")
    assert cli.main(["launch", *f"slurm --time 10 --dry-run {TRAIN}".split()]) == 2
    assert "in the memory of this machine (tmpfs), which no node of the cluster sees" in capsys.readouterr().err


def test_without_submitit_it_says_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert cli.main(["launch", *f"slurm --time 10 {TRAIN}".split()]) == 2
    assert capsys.readouterr().err == "error: metarl launch needs submitit: pip install 'metarl-robotics[slurm]'\n"


def test_a_job_that_sbatch_refuses_leaves_nothing(here, tiny, capsys):
    program(here, "srun", "exit 1")
    program(here, "sbatch", "echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    assert cli.main(["launch", *f"slurm --time 10 {TRAIN}".split(), *tiny]) == 1
    message = capsys.readouterr().err
    assert message == "error: the job was not submitted: sbatch: error: invalid partition specified: nowhere\n"
    assert not (here / "runs").exists()


def test_what_cannot_be_trained_by_so_many_is_refused_before_it_waits(here, tiny, capsys):
    for name in ("srun", "sbatch"):
        program(here, name, "exit 1")
    options = ["slurm", "--time", "10", "--nodes", "3", "--", "train", "--family", "point_goal", "--name", "r"]
    assert cli.main(["launch", *options, *tiny]) == 2
    assert "training.tasks is 2, and 3 processes share them" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_a_resumption_a_sweep_and_a_dry_run_refuse_it_too(here, tiny, capsys):
    for name in ("srun", "sbatch"):
        program(here, name, "exit 1")
    assert cli.main(["train", "--family", "point_goal", "--name", "r", *tiny, "training.iterations=1"]) == 0
    (here / "s.yaml").write_text("base: {agent: ppo, family: point_goal}\nfactors: {agent.lr: [0.1, 0.2]}")
    job = ["launch", "slurm", "--time", "10"]
    for command, message in (
        ([*job, "--nodes", "3", "--", "train", "--resume", "runs/r", "training.iterations=9"], "and 3 processes share"),
        ([*job, "--", "sweep", "s.yaml", "--ranks", "2"], "learns in one process, not in 2"),
        (["sweep", "s.yaml", "--ranks", "2"], "learns in one process, not in 2"),
        (
            [*job, "--ranks-per-node", "2", "--dry-run", "--", "train", "--agent", "ppo", "--family", "point_goal"],
            "learns in one process, not in 2",
        ),
    ):
        capsys.readouterr()
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["r"]
    assert cli.main([*job, "--", "train", "--resume", "runs/r"]) == 0  # nothing is submitted: sbatch would fail
    assert "r is finished, at iteration 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "--agent recurrent_ppo --family point_goal training.simulator=gpu",
            "training.simulator: recurrent_ppo steps its envs on the host",
        ),
        (
            "--agent recurrent_ppo --family point_goal training.simulator=auto",
            "training.simulator: recurrent_ppo steps its envs on the host",
        ),
        ("--agent ppo --family ant_legs training.simulator=gpu", "tasks of family 'ant_legs' have several layouts"),
    ],
)
def test_a_simulator_that_agent_or_family_cannot_use_is_refused_before_the_job_waits(
    overrides, message, here, tiny, capfd
):
    for name in ("srun", "sbatch"):
        program(here, name, "exit 1")
    options = ["slurm", "--time", "10", "--gpus-per-node", "1", "--", "train", "--name", "r"]
    assert cli.main(["launch", *options, *overrides.split(), *tiny]) == 2
    output, said = capfd.readouterr()
    assert message in said and said.startswith("error: ") and said.count("\n") == 1 and output == ""
    assert not (here / "runs").exists()


MISSING = "import sys; sys.modules['mujoco_warp'] = None; from metarl.cli import app; sys.exit(app.main(sys.argv[1:]))"


EVALUATION = pytest.param("evaluation.simulator", marks=pytest.mark.slow)


@pytest.mark.thorough
@pytest.mark.parametrize("simulator", ["training.simulator", EVALUATION])
def test_without_mujoco_warp_a_launch_on_its_simulator_is_refused(simulator, here, tiny):
    for name in ("srun", "sbatch"):
        program(here, name, "exit 1")
    (here / "s.yaml").write_text(
        f"base: {{family: point_goal, {simulator}: gpu}}\nfactors: {{agent.inner_lr: [0.1, 0.2]}}"
    )
    train = ["train", "--family", "point_goal", "--name", "r", *tiny, f"{simulator}=gpu"]
    for work in (train,) if simulator == "training.simulator" else (train, ["sweep", "s.yaml"]):
        command = [sys.executable, "-c", MISSING, "launch", "slurm", "--time", "10", "--", *work]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {simulator}: ") and "pip install metarl-robotics[gpu]" in done.stderr
        assert not (here / "runs").exists()


def test_each_node_of_a_sweep_runs_the_sweep(here, capsys):
    (here / "s.yaml").write_text("factors: {agent.inner_lr: [0.1, 0.2]}")
    options, work = ["--time", "10", "--nodes", "2", "--dry-run"], ["sweep", "s.yaml", "--workers", "3", "--ranks", "2"]
    assert cli.main(["launch", "slurm", *options, "--", *work]) == 0
    folder = here / "runs" / "slurm" / "s" / "dry_run"
    command = f"{sys.executable} -m metarl sweep {here}/s.yaml --runs-dir {here}/runs --workers 3 --ranks 2"
    assert (folder / "commands.txt").read_text() == f"node 0: {command}\nnode 1: {command}\n"
    assert directives(folder / "submission.sh")["--cpus-per-task"] == "6"


def test_what_is_said_of_a_job(here, tiny, capsys):
    program(here, "srun", "exit 1")
    program(here, "sbatch", f'/bin/cp "$1" {here}/seen; echo Submitted batch job 4711')
    options = ["--time", "2:00:00", "--nodes", "2", "--ranks-per-node", "1"]
    arguments = ["slurm", *options, "--", "train", "--family", "point_goal", *tiny]
    assert cli.main(["launch", *arguments, "training.device=cpu"]) == 0
    said = capsys.readouterr().out
    [run] = [path for path in (here / "runs").iterdir() if path.name != "slurm"]
    assert re.fullmatch(r"maml_point_goal_1_\d{8}-\d{6}", run.name) and (run / "config.yaml").is_file()
    logs = here / "runs" / "slurm" / run.name
    for line in (
        "submitted job 4711: 2 nodes, 1 rank on each, time limit 120 minutes",
        f"run: {run}",
        f"logs: {logs}/4711_0_log.out, {logs}/4711_0_log.err",
        f"follow it: tail -F {logs}/4711_*_log.out; see its state: squeue --job 4711",
        "cancel it: scancel 4711",
        f"metarl train --resume {run}",
    ):
        assert line in said
    assert directives(here / "seen") == directives(logs / "4711_submission.sh")
    assert directives(here / "seen")["--cpus-per-task"] == "1"
    assert cli.main(["launch", *arguments, "--name", run.name]) == 2
    assert f"{run} exists; resume it with metarl train --resume" in capsys.readouterr().err
    assert run.is_dir()


def numbers(run_dir: Path):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(run_dir)]


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def preempt(controller: int, number: signal.Signals) -> None:
    """Signal every process of a job's step, as Slurm does. controller: of submitit's, which stands for Slurm."""
    for pid in tree(controller)[1:]:
        os.kill(pid, number)


def wait_for(what, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def lines(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


@pytest.mark.slow
def test_a_preempted_job_goes_on_and_computes_what_an_uninterrupted_one_does(here, tiny):
    longer = [setting for setting in tiny if not setting.startswith("family.horizon")] + ["family.horizon=200"]
    overrides = ["--family", "point_goal", *longer, "training.iterations=20", "training.checkpoint_every=20"]
    overrides += ["tracking.wandb=disabled"]
    assert cli.main(["train", "--name", "whole", *overrides]) == 0
    config, _ = train_command.parse(overrides)
    run = train_command.new_run(config, here / "runs", "r")
    job = Launch("r", Work(("train", "--resume", str(run)), grace_s=60), here / "runs" / "slurm" / "r", 10, 1)
    submitted = submit(job, cluster="local")
    wait_for(lambda: lines(run) >= 1)
    preempt(int(submitted.job.job_id), signal.SIGUSR2)
    submitted.job.result()
    said = submitted.stdout.read_text() + submitted.stderr.read_text()
    assert said.count("stopped by SIGTERM; resume with") == 1 and said.count("Requeued job") == 1
    assert said.count(f"node 0 of 1: {sys.executable} -m metarl train --resume {run}") == 2
    assert numbers(run) == numbers(here / "runs" / "whole")
    assert [line["iteration"] for line in read_metrics(run)] == list(range(1, 21))


@pytest.mark.slow
def test_a_preempted_job_of_two_ranks_goes_on_with_both(here, tiny):
    longer = [setting for setting in tiny if not setting.startswith("family.horizon")] + ["family.horizon=200"]
    overrides = ["--family", "point_goal", *longer, "training.iterations=40", "training.checkpoint_every=40"]
    config, _ = train_command.parse([*overrides, "tracking.wandb=disabled"])
    runs = [train_command.new_run(config, here / "runs", name) for name in ("r", "whole")]
    works = [Work(("train", "--resume", str(run)), ranks=2, grace_s=60) for run in runs]
    jobs = [Launch(run.name, work, here / "jobs" / run.name, 10, 1) for run, work in zip(runs, works, strict=True)]
    submitted = submit(jobs[0], cluster="local")
    wait_for(lambda: lines(runs[0]) >= 1)
    preempt(int(submitted.job.job_id), signal.SIGUSR2)
    submitted.job.result()
    said = submitted.stdout.read_text()
    assert said.count("stopped by SIGTERM; resume with") == 1 and said.count("--nproc-per-node=2") == 2
    submit(jobs[1], cluster="local").job.result()
    assert numbers(runs[0]) == numbers(runs[1]) and len(numbers(runs[0])) == 40


@pytest.mark.thorough
def test_a_run_that_fails_fails_its_job(here, tiny):
    job = Launch("r", Work(("train", "--resume", str(here / "none"))), here / "jobs", 10, 1)
    submitted = submit(job, cluster="local")
    assert "metarl ended with status 2; its messages are in this job's logs" in str(submitted.job.exception())
    assert f"error: no run folder {here / 'none'}" in submitted.stderr.read_text()
