"""MAML, with its baseline and settings."""
