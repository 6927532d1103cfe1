"""Sweeps of task distributions and settings."""
