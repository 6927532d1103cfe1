"""A policy with a memory that is distilled from an oracle, with its settings."""
