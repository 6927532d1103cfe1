"""Runs: trials, a run's folder, checkpoints, tracking, the loop on a robot."""
