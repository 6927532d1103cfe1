"""Runs: trials, the run folder, checkpoints, tracking, and the controller that runs a policy on a robot."""
