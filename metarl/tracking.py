"""How a run is recorded: metrics.jsonl, which survives a crash, and Weights & Biases, which is never needed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from metarl.config import RunConfig, config_to_dict
from metarl.errors import RunError, describe
from metarl.files import append, write

METRICS = "metrics.jsonl"
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
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"cannot write {self._path}: {error.strerror}; make room, then go on with metarl train --resume "
                f"{self._path.parent}"
            ) from error
        self._wandb.log(metrics)

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
    """Keep the lines up to an iteration: those of a killed run that went on after its last checkpoint come again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if 0 < _iteration(line) <= iteration]
    write(path, "".join(line + "\n" for line in kept).encode())


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one dict an iteration."""
    lines = (run_dir / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _iteration(line) > 0]


def _iteration(line: str) -> int:
    """The iteration of a line of metrics; 0 for a line that a kill cut short."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return 0


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
