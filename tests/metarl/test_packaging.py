"""Pins and metadata; `make wheel` installs the real thing in a clean environment."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_names():
    assert (PROJECT["name"], PROJECT["scripts"]) == ("metarl-robotics", {"metarl": "metarl.cli.app:main"})
    assert PROJECT["requires-python"] == ">=3.11"
    assert (PINS["mujoco"], PINS["torch"]) == ("3.17.0", "2.13.0")


def test_every_dependency_and_what_it_depends_on_is_pinned():
    pins = {canonical(name) for name in PINS}
    unpinned, queue, seen = set(), [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]], set()
    while queue:
        requirement = queue.pop()
        if "extra ==" in requirement:
            continue
        if re.match("nvidia-|cuda-|triton", requirement):  # a CUDA build of torch brings them, and pins them
            continue
        name = canonical(re.match(r"[\w.-]+", requirement).group())
        if name in seen:
            continue
        seen.add(name)
        try:
            queue += metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # another platform's, by its marker
            continue
        if name not in pins:
            unpinned.add(name)
    assert unpinned == set()
    assert len(seen) > 40


@pytest.mark.parametrize("name", ["mujoco", "torch", "numpy", "gymnasium", "stable_baselines3", "wandb", "tyro"])
def test_the_environment_is_the_pinned_one(name):
    assert metadata.version(name).split("+")[0] == PINS[name]


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "Makefile", ".ci/run"])
def test_no_package_index_is_named(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"://|index-url|find-links|trusted-host", text)
    if name == "constraints.txt":
        assert "+" not in text and "@" not in text
