"""Measurements, each a command of its own: `python -m benchmarks.NAME`."""

import metarl  # noqa: F401  (before torch, as in every command of metarl: it says how torch's threads wait)
