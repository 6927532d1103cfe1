"""The concurrent estimator, with its network and settings."""
