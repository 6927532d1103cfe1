"""Simulation on mujoco-warp."""
