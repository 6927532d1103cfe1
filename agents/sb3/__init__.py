"""The agents of Stable-Baselines3, with their settings."""
