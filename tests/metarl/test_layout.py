"""Imports point one way, by one name a module."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("envs", "agents", "metarl")
LINKS = tuple(ROOT / "metarl" / name for name in ("envs", "agents", "configs"))
MODULES = sorted(
    p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py") if not any(link in p.parents for link in LINKS)
)
ALLOWED = {
    "envs": ("metarl.envs", "metarl.bounds", "metarl.patterns"),
    "agents": ("metarl.agents", "metarl.bounds", "metarl.patterns"),
    "metarl": ("metarl",),
}
"""Which modules of the project each folder may import."""


def imports(path: Path):
    """(line, module) of every import; `from a import b` as a.b, which may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_there_is_something_to_check():
    assert len(MODULES) > 15
    assert {p.relative_to(ROOT).parts[0] for p in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    for line, module in imports(path):
        top = module.split(".")[0]
        assert top not in ("envs", "agents"), f"{path}:{line}: import metarl.{module}, not {module}"
        if top == "metarl":
            allowed = ALLOWED[path.relative_to(ROOT).parts[0]]
            assert any(f"{module}.".startswith(f"{a}.") for a in allowed), f"{path}:{line}: imports {module}"


@pytest.mark.parametrize(
    "path",
    [
        "agents/registry.py",
        "envs/registry.py",
        "envs/adapters/gymnasium_adapter.py",
        "metarl/config.py",
        "metarl/bounds.py",
        "metarl/patterns.py",
        "metarl/options.py",
        *(str(p.relative_to(ROOT)) for p in MODULES if p.stem.endswith("settings")),
    ],
)
def test_what_help_needs_imports_nothing_heavy_at_the_top(path):
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    top = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {
        a.name.split(".")[0] if isinstance(n, ast.Import) else str(n.module).split(".")[0] for n in top for a in n.names
    }
    assert not names & {"torch", "mujoco", "wandb", "matplotlib"}


@pytest.mark.parametrize("name", ["envs", "agents"])
def test_the_folders_are_one_package_under_one_name(name):
    link = ROOT / "metarl" / name
    assert link.is_symlink() and os.readlink(link) == f"../{name}"
    command = [sys.executable, "-c", f"import {name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert f"ImportError: import metarl.{name}, not {name}" in done.stderr


def test_presets_travel_with_the_package():
    assert os.readlink(ROOT / "metarl" / "configs") == "../configs"
