"""Identification: which class of tasks a few episodes, or the first seconds of one, come from. Numbers only."""
