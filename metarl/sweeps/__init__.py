"""Sweeps over task distributions and settings."""
