"""Robots and their families."""
