"""How a run is recorded: metrics.jsonl, which survives a crash, and Weights & Biases, which is never needed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from metarl.config import RunConfig, config_to_dict
from metarl.envs.strict_yaml import read_file
from metarl.envs.text import one_line
from metarl.errors import LONGEST, RunError, UsageError, describe
from metarl.files import append, write

METRICS = "metrics.jsonl"
MOST_BYTES = 2**30
"""Of a metrics.jsonl that is read."""
MOST_LINES = 10**9
"""Iterations are fewer."""
SPANS = 4
"""Gaps in the iterations that are named."""
STEPS = 10
"""W&B steps from one iteration to the next: those between are the evaluation's and the reports'."""
REPORT_STEP = 2
"""W&B steps from an iteration to the report on its checkpoint."""
WANDB_INIT_S = 30.0
"""Longest wait for the W&B server when a run starts."""
WANDB_FINISH_S = 60.0
"""Longest wait for the upload when a run ends; what is left stays on disk and `wandb sync` sends it."""


class Tracker:
    """Takes one dict of metrics an iteration; `iteration` and `env_steps` are among them."""

    def __init__(
        self, config: RunConfig, run_dir: Path, state: Mapping[str, Any] | None = None, iteration: int = 0
    ) -> None:
        """state, iteration: of the checkpoint that is gone on from; later lines of metrics.jsonl are dropped."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / METRICS
        truncate_metrics(self._path, iteration)
        self._file = append(self._path)
        self._wandb = WandbRun(config, run_dir, dict(state or {}).get("wandb_id"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and send the same to W&B. RunError if the line cannot be written."""
        # JSON has no NaN: a return of which no episode was sound is null.
        line = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self._disk_errors():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        self._wandb.log(metrics)

    def sync(self) -> None:
        """Bring the lines to the disk, before a checkpoint that counts on them. RunError if the disk refuses."""
        with self._disk_errors():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write {self._path}: {error.strerror}; make room, then go on with metarl train --resume "
                f"{self._path.parent}"
            ) from error

    def conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """What a run came to, for W&B: numbers, `env_steps` among them, and PNG files by name."""
        self._wandb.conclude(summary, figures)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps so that a resumed run goes on as the same W&B run."""
        return {"wandb_id": self._wandb.id, "wandb_step": self._wandb.step}

    def close(self, failed: bool = False) -> None:
        """End the record; `failed` marks the W&B run as failed."""
        with contextlib.suppress(OSError):  # what could not be written was said when it was logged
            self._file.close()
        self._wandb.finish(failed)


def truncate_metrics(path: Path, iteration: int) -> None:
    """Keep the lines up to an iteration: those of a killed run that went on after its last checkpoint come again.

    What is missing of them is said on stderr.
    """
    if not path.exists():
        if iteration:
            print(f"warning: {path} is gone, and with it the metrics of {iteration} iterations", file=sys.stderr)
        return
    record = read_record(path, iteration)
    if record.missing:
        warn_of(record)
    kept = [line for number, line in sorted(record.lines.items()) if number <= iteration]
    write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one dict an iteration; what is missing or cannot be read is said on stderr."""
    record = read_record(run_dir / METRICS)
    warn_of(record)
    return [line for _, line in sorted(record.lines.items())]


@dataclass(frozen=True)
class Record:
    """What a metrics.jsonl holds."""

    path: Path
    lines: dict[int, dict[str, Any]]
    """By iteration; of several of one iteration the last."""
    missing: tuple[int, ...]
    """Iterations that have no line."""
    unread: tuple[int, ...]
    """Numbers of the lines that cannot be read."""
    cut: bool
    """Whether the last line, which has no end, is among these, as a kill leaves it."""

    @property
    def amiss(self) -> str:
        """What is missing and what cannot be read, in words; empty if nothing."""
        whole = self.unread[:-1] if self.cut else self.unread
        said = [f"no iteration {spans(self.missing)}"] if self.missing else []
        said += [f"no line that can be read at {spans(whole)}"] if whole else []
        said += ["a last line that is cut short"] if self.cut else []
        return f"{self.path} has {', and '.join(said)}" if said else ""


def read_record(path: Path, iterations: int = 0) -> Record:
    """Read a metrics.jsonl as far as it can be read; iterations: that it must have, if it has no later ones.

    UsageError if the file cannot be read at all.
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
    return Record(path, lines, missing, unread, bool(unread) and unread[-1] == len(rows))


def warn_of(record: Record) -> None:
    """Say on stderr what is missing of a run's metrics."""
    if record.amiss:
        print(f"warning: {one_line(record.amiss, LONGEST)}; what is there is used", file=sys.stderr, flush=True)


def spans(numbers: Sequence[int]) -> str:
    """Ascending whole numbers in words: `3, 7 to 9`; of many gaps the first."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    words = [str(group[0]) if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups]
    return ", ".join(words[:SPANS]) + (f" and {len(words) - SPANS} more" if len(words) > SPANS else "")


def _line(row: bytes) -> dict[str, Any] | None:
    """A line of metrics; None for one that a kill cut short, or that is none."""
    try:
        line = json.loads(row.decode("utf-8"))
        iteration, env_steps = line["iteration"], line["env_steps"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = all(v is None or (isinstance(v, int | float) and abs(v) < math.inf) for v in line.values())
    counted = type(iteration) is type(env_steps) is int and 0 < iteration < MOST_LINES
    return line if numbers and counted else None


def wandb_mode(setting: Literal["auto", "online", "offline", "disabled"]) -> str:
    """The mode that a setting stands for on this machine. WANDB_MODE decides where the setting is `auto`."""
    if setting != "auto":
        return setting
    if (mode := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
        return mode
    return "online" if _has_credentials() else "offline"


def _has_credentials() -> bool:
    """Whether W&B would find credentials; asked of the machine alone, `wandb.login` would ask the server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    return read_netrc_auth(host=wandb.Settings().base_url) is not None


class WandbRun:
    """A W&B run whose failures are a line on stderr and nothing more."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str | None = None):
        """run_id: of the run that is gone on with, None for a new one."""
        self.id = run_id
        self.step = 0
        self._run: Any = None
        if config.tracking.wandb == "disabled":
            return
        # Read when wandb is imported; artifacts of all runs would be staged at home otherwise.
        os.environ["WANDB_DATA_DIR"] = str(run_dir.resolve() / "wandb")
        mode = self._guard("start", wandb_mode, config.tracking.wandb) or "disabled"
        if mode == "online" and self._guard("go online", self._init, config, run_dir, mode) is None:
            mode = "offline"
        if mode == "offline":
            self._guard("start", self._init, config, run_dir, mode)
        if self._run is not None and mode == "offline":
            folder = self._guard("tell its folder", lambda: os.path.relpath(self._run.settings.sync_dir))
            print(f"W&B records offline; to upload: wandb sync {folder}", flush=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        """One step an iteration, `STEPS` apart: a resumed run repeats no step, and those between are free."""
        self.step = STEPS * int(metrics["iteration"])
        if self._run is not None:
            self._guard("log", lambda: self._run.log(dict(metrics), step=self.step, commit=True))

    def conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """Numbers and PNG files of the run as a whole, on the step after the last iteration's."""
        if self._run is not None:
            self._guard("take the evaluation", self._conclude, summary, figures)

    def _conclude(self, summary: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        import wandb

        images = {name: wandb.Image(str(path)) for name, path in figures.items()}
        self._run.log({**summary, **images}, step=self.step + 1, commit=True)

    def report(self, step: int, page: Path, figures: Mapping[str, Path], films: Mapping[str, Path]) -> None:
        """A page with its figures (PNG) and films (MP4) by name. step: of the run's checkpoint."""
        if self._run is not None:
            self._guard("take the report", self._report, step, page, figures, films)

    def _report(self, step: int, page: Path, figures: Mapping[str, Path], films: Mapping[str, Path]) -> None:
        import wandb

        logged: dict[str, Any] = {f"report/{name}": wandb.Image(str(path)) for name, path in figures.items()}
        logged |= {f"report/{name}": wandb.Video(str(path), format="mp4") for name, path in films.items()}
        logged["report/page"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
        # The server knows the step that comes next; an offline file must name one that nothing else takes.
        self._run.log(logged, step=None if self._run.settings.mode == "online" else step + REPORT_STEP, commit=True)

    def finish(self, failed: bool = False) -> None:
        """Write out what is left."""
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
        """The call's result, or None and a warning: whatever W&B raises, the run goes on."""
        try:
            return call(*arguments)
        except Exception as error:
            self._run = None
            record = "metrics.jsonl has everything" if deed != "go online" else "recording offline"
            print(f"warning: W&B could not {deed} ({describe(error)[:300]}); {record}", file=sys.stderr, flush=True)
            return None
