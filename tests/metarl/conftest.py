import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make a run of any agent on any family take a blink."""
    return (
        "training.tasks=2",
        "training.envs_per_task=2",
        "training.threads=1",
        "evaluation.tasks=2",
        "evaluation.envs_per_task=2",
        "evaluation.adaptations=1",
        "evaluation.seeds=1",
        "evaluation.bootstrap_samples=20",
        "family.horizon=10",
    )


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Of a machine where nobody has logged in to W&B, and where torch does not fight the other tests for cores."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("home")), "OMP_NUM_THREADS": "1", "NETRC": "/nonexistent"}


@pytest.fixture(autouse=True)
def no_login(monkeypatch, environment):
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    for key in ("HOME", "NETRC"):
        monkeypatch.setenv(key, environment[key])


@pytest.fixture
def metarl(environment, tmp_path):
    """Run the command line in a process of its own, in a folder of its own."""

    def run(*arguments: str | Path, **keywords) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "metarl", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment, **keywords
        )

    return run


@pytest.fixture
def sweep_file(tmp_path):
    """Write a sweep file; returns its path."""

    def write(text: str, name: str = "s.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
