"""Families as Gymnasium's and Stable-Baselines3's environments."""
