"""The control loop of docs/, as a module for tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

CONTROL_LOOP = Path(__file__).parents[2] / "docs" / "control_loop.py"


def loop():
    """The control loop of docs/."""
    spec = importlib.util.spec_from_file_location("control_loop", CONTROL_LOOP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
