"""Evaluation: outcomes of trials, statistics, comparisons."""
