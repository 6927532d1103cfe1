"""Deployment: a robot's logged rollouts, export, the live viewer."""
