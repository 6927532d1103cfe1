"""PPO over whole trials, for agents that read slots."""
