"""Record a run: metrics.jsonl, which survives a crash, and Weights & Biases, which is optional."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from metarl.config import RunConfig, config_to_dict
from metarl.envs.strict_yaml import read_file
from metarl.envs.text import one_line, typed
from metarl.errors import LONGEST, RunError, UsageError, describe
from metarl.files import append, write

METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id"
"""File in a run's folder with the id of its W&B run, which a run that is stopped before its first checkpoint keeps."""
MOST_BYTES = 2**30
"""Largest size of a metrics.jsonl that is read."""
MOST_ID = 1000
"""Largest size of a file with an id, bytes."""
MOST_LINES = 10**9
"""Numbers of iterations are below this."""
SPANS = 4
"""Largest number of gaps in the iterations that a message names."""
STEPS = 10
"""W&B steps from one iteration to the next; those between are for the evaluation and reports."""
REPORT_STEP = 2
"""W&B steps from an iteration to the report on its checkpoint."""
WANDB_INIT_S = 30.0
"""Longest wait for the W&B server when a run starts."""
WANDB_FINISH_S = 60.0
"""Longest wait for the upload when a run ends; `wandb sync` sends the rest from the disk."""


class Tracker:
    """Records one dict of metrics for each iteration, with `iteration` and `env_steps` among them."""

    def __init__(
        self, config: RunConfig, run_dir: Path, state: Mapping[str, Any] | None = None, iteration: int = 0
    ) -> None:
        """state, iteration: those of the checkpoint that is resumed; later lines of metrics.jsonl are dropped."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / METRICS
        truncate_metrics(self._path, iteration)
        self._file = append(self._path)
        known = dict(state or {}).get("wandb_id") or read_wandb_id(run_dir)
        self._wandb = WandbRun(config, run_dir, known)
        if self._wandb.id and self._wandb.id != known:
            write(run_dir / WANDB_ID, f"{self._wandb.id}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and send the same to W&B. RunError if the line cannot be written."""
        # JSON has no NaN: a return without a sound episode is null.
        line = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self._disk_errors():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        self._wandb.log(metrics)

    def sync(self) -> None:
        """Flush the lines to the disk, before a checkpoint that relies on them. RunError if the disk refuses."""
        with self._disk_errors():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write {self._path}: {error.strerror}; make room, then resume with metarl train --resume "
                f"{self._path.parent}"
            ) from error

    def conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """Send the results of a run to W&B: numbers, with `env_steps` among them, and PNG files by name."""
        self._wandb.conclude(summary, figures)

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, so that a resumed run continues the same W&B run."""
        return {"wandb_id": self._wandb.id, "wandb_step": self._wandb.step}

    def close(self, failed: bool = False) -> None:
        """Close the record; `failed` marks the W&B run as failed."""
        with contextlib.suppress(OSError):  # `log` has raised what could not be written
            self._file.close()
        self._wandb.finish(failed)


def read_wandb_id(run_dir: Path) -> str | None:
    """Return the id of a run's W&B run as its folder has it; None without one."""
    try:
        known = read_file(run_dir / WANDB_ID, MOST_ID).decode().strip()
    except (OSError, ValueError):
        return None
    return known if re.fullmatch(r"[\w-]+", known) else None


def truncate_metrics(path: Path, iteration: int) -> None:
    """Keep the lines up to an iteration: a killed run repeats those after its last checkpoint.

    Missing lines are a warning on stderr.
    """
    if not path.exists():
        if iteration:
            print(f"warning: {path} is missing, with the metrics of {iteration} iterations", file=sys.stderr)
        return
    record = read_record(path, iteration)
    if record.missing:
        warn_of(record)
    kept = [line for number, line in sorted(record.lines.items()) if number <= iteration]
    write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run, one dict for each iteration; missing or damaged lines are a warning on stderr."""
    record = read_record(run_dir / METRICS)
    warn_of(record)
    return [line for _, line in sorted(record.lines.items())]


@dataclass(frozen=True)
class MetricsFile:
    """Contents of a metrics.jsonl."""

    path: Path
    lines: dict[int, dict[str, Any]]
    """Metrics by iteration; the last line counts if several have the same iteration."""
    missing: tuple[int, ...]
    """Iterations without a line."""
    unread: tuple[int, ...]
    """Line numbers, from 1, of damaged lines."""
    cut: bool
    """Whether the last line is one of these because a kill cut it short."""

    @property
    def amiss(self) -> str:
        """Missing and damaged lines, in words; empty if there are none."""
        whole = self.unread[:-1] if self.cut else self.unread
        said = [f"no iteration {spans(self.missing)}"] if self.missing else []
        said += [f"a damaged line at {spans(whole)}"] if whole else []
        said += ["a last line that is cut short"] if self.cut else []
        return f"{self.path} has {', and '.join(said)}" if said else ""


def read_record(path: Path, iterations: int = 0) -> MetricsFile:
    """Read a metrics.jsonl; damaged lines are left out.

    iterations: number of iterations that it must have. UsageError if the file cannot be read at all.
    """
    try:
        data = read_file(path, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} {error}") from error
    rows = data.split(b"\n")
    parsed = [(number, _line(row)) for number, row in enumerate(rows, 1) if row.strip()]
    lines = {int(line["iteration"]): line for _, line in parsed if line is not None}
    unread = tuple(number for number, line in parsed if line is None)
    last = iterations or max(lines, default=0)
    missing = tuple(number for number in range(1, last + 1) if number not in lines) if last < MOST_LINES else ()
    return MetricsFile(path, lines, missing, unread, bool(unread) and unread[-1] == len(rows))


def warn_of(record: MetricsFile) -> None:
    """Print a warning on stderr about missing and damaged lines."""
    if record.amiss:
        print(f"warning: {one_line(record.amiss, LONGEST)}; the other lines are used", file=sys.stderr, flush=True)


def spans(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers in words, such as `3, 7 to 9`; only the first of many spans."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    words = [str(group[0]) if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups]
    return ", ".join(words[:SPANS]) + (f" and {len(words) - SPANS} more" if len(words) > SPANS else "")


def _line(row: bytes) -> dict[str, Any] | None:
    """Return a line of metrics; None if it is cut short or damaged."""
    try:
        line = json.loads(row.decode("utf-8"))
        iteration, env_steps = line["iteration"], line["env_steps"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = all(v is None or (isinstance(v, int | float) and abs(v) < math.inf) for v in line.values())
    counted = type(iteration) is type(env_steps) is int and 0 < iteration < MOST_LINES
    return line if numbers and counted else None


def wandb_mode(setting: Literal["auto", "online", "offline", "disabled"]) -> str:
    """Return the W&B mode that a setting stands for on this machine; WANDB_MODE decides what `auto` is."""
    if setting != "auto":
        return setting
    if (mode := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
        return mode
    return "online" if _has_credentials() else "offline"


def _has_credentials() -> bool:
    """Return whether W&B has credentials on this machine; `wandb.login` would ask the server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    return read_netrc_auth(host=wandb.Settings().base_url) is not None


class WandbRun:
    """A W&B run whose failures are only a line on stderr."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str | None = None):
        """run_id: id of the W&B run to continue; None for a new one."""
        self.id = run_id
        self.step = 0
        self._run: Any = None
        if config.tracking.wandb == "disabled":
            return
        # wandb reads this when it is imported; otherwise it stages artifacts of all runs in the home folder.
        os.environ["WANDB_DATA_DIR"] = str(run_dir.resolve() / "wandb")
        mode = self._guard("start", wandb_mode, config.tracking.wandb) or "disabled"
        if mode == "online" and self._guard("go online", self._init, config, run_dir, mode) is None:
            mode = "offline"
        if mode == "offline":
            self._guard("start", self._init, config, run_dir, mode)
        if self._run is not None and mode == "offline":
            folder = self._guard("tell its folder", lambda: os.path.relpath(self._run.settings.sync_dir))
            print(f"W&B records offline; upload with: wandb sync {typed(folder)}", flush=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Log an iteration. W&B steps are `STEPS` apart: a resumed run repeats none, and those between are free."""
        self.step = STEPS * int(metrics["iteration"])
        if self._run is not None:
            self._guard("log", lambda: self._run.log(dict(metrics), step=self.step, commit=True))

    def conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """Log numbers and PNG files of the whole run, on the step after the last iteration's."""
        if self._run is not None:
            self._guard("take the evaluation", self._conclude, summary, figures)

    def _conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        import wandb

        images = {name: wandb.Image(str(path)) for name, path in figures.items()}
        self._run.log({**summary, **images}, step=self.step + 1, commit=True)

    def report(
        self, step: int, env_steps: int, page: Path, figures: Mapping[str, Path], films: Mapping[str, Path]
    ) -> None:
        """Log a page with its figures (PNG) and films (MP4) by name. step, env_steps: of the run's checkpoint."""
        if self._run is not None:
            self._guard("take the report", self._report, step, env_steps, page, figures, films)

    def _report(
        self, step: int, env_steps: int, page: Path, figures: Mapping[str, Path], films: Mapping[str, Path]
    ) -> None:
        import wandb

        logged: dict[str, Any] = {"env_steps": env_steps}  # W&B takes 0 for what this process never logged
        logged |= {f"report/{name}": wandb.Image(str(path)) for name, path in figures.items()}
        logged |= {f"report/{name}": wandb.Video(str(path), format="mp4") for name, path in films.items()}
        logged["report/page"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
        # The server knows the next step; an offline file must name one that nothing else takes.
        self._run.log(logged, step=None if self._run.settings.mode == "online" else step + REPORT_STEP, commit=True)

    def finish(self, failed: bool = False) -> None:
        """Finish the run, and upload the rest."""
        if self._run is not None:
            run = self._run
            self._guard("finish", lambda: run.finish(exit_code=int(failed)))
            self._run = None

    def _init(self, config: RunConfig, run_dir: Path, mode: Literal["online", "offline"]) -> bool:
        import wandb

        self._run = wandb.init(
            mode=mode,
            dir=str(run_dir.resolve()),
            id=self.id,
            resume="allow" if self.id else None,
            name=run_dir.resolve().name,
            project=config.tracking.project,
            entity=config.tracking.entity or None,
            group=config.tracking.group or None,
            job_type="train",
            tags=None if self.id else [config.agent_name, config.family_name],  # those of a run that goes on are kept
            config=config_to_dict(config),
            settings=wandb.Settings(
                silent=mode == "offline",
                quiet=True,
                console="off",
                init_timeout=WANDB_INIT_S,
                finish_timeout=WANDB_FINISH_S,
            ),
        )
        self.id = self._run.id
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")
        return True

    def _guard(self, deed: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a call; if W&B raises, print a warning and return None: training continues."""
        try:
            return call(*arguments)
        except Exception as error:
            self._run = None
            record = "metrics.jsonl has all metrics" if deed != "go online" else "recording offline"
            print(f"warning: W&B could not {deed} ({describe(error)[:300]}); {record}", file=sys.stderr, flush=True)
            return None
