"""Robots that are their own mirror image, left for right: where joints, tasks and observations go in a mirror."""
