"""Launching runs on a cluster."""
