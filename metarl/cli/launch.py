"""`metarl launch slurm`: submit a training or a sweep as a job of a Slurm cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.agents.ranks import Ranks, planned
from metarl.cli import sweep as sweep_command
from metarl.cli import train as train_command
from metarl.cli.arguments import Arguments, whole
from metarl.cli.invocation import Invocation
from metarl.envs.text import typed
from metarl.errors import UsageError, nearest
from metarl.launching.launch import Launch, Work, minutes_of, require_shared
from metarl.options import flag
from metarl.runs.entries import run_dir

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.launching.slurm import Submitted

HELP = """usage: metarl launch slurm --time T [OPTIONS] -- train [OPTIONS OF metarl train]
       metarl launch slurm --time T [OPTIONS] -- train --resume RUN
       metarl launch slurm --time T [OPTIONS] -- sweep FILE.yaml [OPTIONS OF metarl sweep]

Submit a training or a sweep as a job of a Slurm cluster. It needs: pip install 'metarl-robotics[slurm]'. A training
is one run on all ranks of all nodes, through torchrun; in a sweep, each node runs trials by itself. Slurm requeues the
job when it is preempted, when a node fails and at its time limit, and the job resumes from its last checkpoint. See
docs/launch.md.

  --time T              time limit in Slurm's format: 90 (minutes), 4:00:00, 2-00:00:00
  --nodes N             number of nodes (1)
  --ranks-per-node K    training processes on each node (one for each GPU; 1 without GPUs)
  --gpus-per-node N     GPUs of each node (0)
  --cpus-per-task N     CPU cores of each node, which runs one Slurm task (one for each rank)
  --mem SIZE            memory of each node, such as 64G
  --partition, --account, --qos, --constraint, --exclude NAME      passed on to sbatch
  --grace S             seconds between Slurm's warning and the end of the job; an iteration must fit (120)
  --max-requeues N      how often the job resumes after its time limit (100)
  --max-restarts N      how often torchrun restarts the ranks after one of them died (3)
  --dry-run             save and print the batch script and each node's command, and submit nothing
"""
SBATCH = ("partition", "account", "qos", "constraint", "exclude", "mem")
"""Options that are passed on to sbatch."""
COUNTS = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0, "cpus_per_task": 1, "grace": 30}
COUNTS |= {"max_requeues": 0, "max_restarts": 0}
"""Least value of each option that is a whole number."""
SIMULATED = ("family.", "training.simulator")
"""Settings that decide whether the tasks can be simulated. Where a sweep varies them, some variants may not be."""
BEGUN = ("training.adaptations", "training.curriculum", "evaluation.adaptations")
"""Settings that decide what else is refused of a new run. Where a sweep varies them, some variants may not be."""
JOBS = "slurm"
"""Subfolder of the folder of all runs, with a folder of scripts and logs for each run."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    own, work = arguments[:cut], arguments[cut + 1 :]
    given, plain, switched = Arguments.plain(own, ("time", *COUNTS, *SBATCH), ("dry_run",))
    if given.help:
        print(HELP, end="")
        return 0
    if given.positionals != ["slurm"]:
        got = f", got {' '.join(given.positionals)}" if given.positionals else ""
        raise UsageError(f"metarl launch takes: slurm [OPTIONS] -- train|sweep ...{got}")
    if not work or work[0] not in (commands := {"train": _train, "sweep": _sweep}):
        got = f", got {work[0]!r}{nearest(work[0], ('train', 'sweep'))}" if work else ""
        raise UsageError(f"name the command to launch after --: train ... or sweep ...{got}")
    options = Options(plain, "dry_run" in switched)
    return commands[work[0]](work[1:], options, invocation)


class Options:
    """Options of the job, checked."""

    def __init__(self, plain: dict[str, str], dry: bool) -> None:
        if "time" not in plain:
            raise UsageError("--time is missing; give the job's time limit, such as --time 4:00:00")
        number = {name: whole(plain[name], flag(name), least) for name, least in COUNTS.items() if name in plain}
        self.plain, self.number, self.dry = plain, number, dry
        self.minutes = minutes_of(plain["time"])
        self.grace_s = number.get("grace", 120)
        if self.grace_s >= 60 * self.minutes:
            raise UsageError(
                f"--grace is {self.grace_s} s and --time is not longer; give a longer --time or a shorter --grace"
            )
        if importlib.util.find_spec("submitit") is None:
            raise UsageError("metarl launch needs submitit: pip install 'metarl-robotics[slurm]'")
        for program in ("sbatch", "srun") if not dry else ():
            if shutil.which(program) is None:
                raise UsageError(
                    f"no {program} on PATH: this machine cannot submit jobs to Slurm; launch from a login node of the "
                    "cluster, or see with --dry-run what would be submitted"
                )

    def launch(self, name: str, runs_dir: Path, arguments: Sequence[str], processes: int | None = None) -> Launch:
        """Return the job that runs metarl with these arguments.

        processes: number of processes on each node, for a command that each node runs by itself; None: all nodes train
        one run.
        """
        number, together = self.number, processes is None
        gpus = number.get("gpus_per_node", 0)
        ranks = number.get("ranks_per_node", max(gpus, 1)) if together else 1
        work = Work(
            tuple(arguments),
            number.get("nodes", 1),
            ranks,
            number.get("max_restarts", 3),
            together,
            self.grace_s,
        )
        folder = runs_dir / JOBS / name
        require_shared(folder)
        return Launch(
            name,
            work,
            folder,
            self.minutes,
            number.get("cpus_per_task", processes or ranks),
            gpus,
            number.get("max_requeues", 100),
            {name: self.plain[name] for name in SBATCH if name in self.plain},
        )


def _train(arguments: list[str], options: Options, invocation: Invocation) -> int:
    config, plain = train_command.parse(arguments)
    runs_dir = Path(plain.get("runs_dir", "runs")).absolute()
    if "resume" in plain:
        from metarl.training.finished import finished_run, finished_words

        directory = run_dir(plain["resume"], runs_dir).absolute()
        invocation.run_dir = directory
        launch = options.launch(directory.name, directory.parent, _going_on(directory, arguments))
        if (finished := finished_run(directory, config)) is not None:
            print(finished_words(finished))
            return 0
        _require_trainable(config, launch, planned(launch.work.nodes * launch.work.ranks), new=False)
        if options.dry:
            return _dry_run(launch)
        return _submit(launch, f"run: {directory}", directory)

    from metarl.files import require_name
    from metarl.runs.run import new_name

    name = plain.get("name") or new_name(config)
    require_name(name)
    directory = runs_dir / name
    launch = options.launch(name, runs_dir, ["train", "--resume", str(directory)])
    ranks = planned(launch.work.nodes * launch.work.ranks)
    # Mistakes in the settings show now, and not when the job starts; and every start of the job is the same: a resume.
    _require_trainable(config, launch, ranks, new=True)
    if note := train_command.untuned(config, plain):
        print(f"note: {note}")
    if options.dry:
        return _dry_run(launch)
    train_command.new_run(config, runs_dir, name, ranks, device="cpu")
    invocation.run_dir = directory
    try:
        return _submit(launch, f"run: {directory}", directory)
    except BaseException:  # the name is free again
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            runs_dir.rmdir()
        raise


def _require_trainable(config: RunConfig, launch: Launch, ranks: Ranks, new: bool) -> None:
    from metarl.training.rehearsal import require_trainable

    require_trainable(config, launch.gpus > 0, ranks, new)


def _going_on(directory: Path, arguments: list[str]) -> list[str]:
    """Return the arguments that resume a run, with the settings that are to change."""
    settings = {n: v for n, v in Arguments.split(arguments).options.items() if n not in train_command.PLAIN_OPTIONS}
    changes = [token for name, values in settings.items() for token in (flag(name), *values)]
    return ["train", "--resume", str(directory), *changes]


def _sweep(arguments: list[str], options: Options, invocation: Invocation) -> int:
    request = sweep_command.parse(arguments)
    if request is None:
        return 0
    from metarl.sweeps.same_sweep import require_no_other

    for name in (*sweep_command.NO_WORK, *sweep_command.HIDDEN):
        if name in request.plain or name in request.switched:
            raise UsageError(f"{flag(name)} of metarl sweep cannot be launched; run the command here")
    for name in ("ranks_per_node", "max_restarts"):
        if name in options.number:
            raise UsageError(f"{flag(name)} is for metarl train; for a sweep give: -- sweep FILE.yaml --ranks K")
    runs_dir = request.folder.parent.absolute()
    command = ["sweep", str(request.sweep.path.absolute()), "--runs-dir", str(runs_dir)]
    command += [token for name, value in request.number.items() for token in (flag(name), str(value))]
    ranks = request.number.get("ranks", 1)
    launch = options.launch(request.folder.name, runs_dir, command, request.number.get("workers", 1) * ranks)
    require_no_other(request.sweep, request.folder)
    sweep_command.require_startable(request.sweep, ranks)
    varied = [name for factor in request.sweep.factors for name in factor.settings]
    if not any(name.startswith(SIMULATED) for name in varied):
        new = not any(name in BEGUN for name in varied)
        _require_trainable(request.sweep.base, launch, sweep_command.ranks_of(request.sweep, ranks), new)
    if options.dry:
        return _dry_run(launch)
    return _submit(launch, f"sweep: {runs_dir / request.folder.name}", None)


def _dry_run(launch: Launch) -> int:
    from metarl.files import make_folder, write
    from metarl.launching.slurm import script

    folder = launch.folder / "dry_run"
    make_folder(folder, "--runs-dir")
    text = script(launch)
    nodes = [f"node {node}: {command}" for node, command in enumerate(launch.commands())]
    write(folder / "submission.sh", text.encode())
    write(folder / "commands.txt", "".join(f"{line}\n" for line in nodes).encode())
    print(text.rstrip(), end="\n\n")
    print(*nodes, sep="\n", end="\n\n")
    print(f"nothing was submitted; saved {folder / 'submission.sh'} and {folder / 'commands.txt'}")
    return 0


def _submit(launch: Launch, what: str, directory: Path | None) -> int:
    from metarl.launching.slurm import submit

    _say(launch, submit(launch), what)
    if directory is not None:
        print(f"to resume by hand after the job has ended: metarl train --resume {typed(directory)}")
    return 0


def _say(launch: Launch, submitted: Submitted, what: str) -> None:
    work, job = launch.work, submitted.job.job_id
    ranks = f", {work.ranks} rank{'s' * (work.ranks > 1)} on each" if work.together else ""
    print(f"submitted job {job}: {work.nodes} node{'s' * (work.nodes > 1)}{ranks}, time limit {launch.minutes} minutes")
    print(what)
    print(f"logs: {submitted.stdout}, {submitted.stderr}")
    log = submitted.stdout
    if work.nodes > 1:  # torchrun decides which node has the first rank, the one that prints
        print(f"      and for node K: {job}_K_log.out and .err beside them")
        log = log.with_name(f"{job}_*_log.out")
    follow = shlex.quote(f"{log.parent}/") + log.name
    print(f"follow it: tail -F {follow}; see its state: squeue --job {job}")
    print(f"cancel it: scancel {job}")
