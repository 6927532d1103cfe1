"""Metric-based learning: embeddings of episodes that lie together where the task is the same."""
