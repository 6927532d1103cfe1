"""RL2, with its network and settings."""
