"""Memories of agents that adapt by remembering."""
