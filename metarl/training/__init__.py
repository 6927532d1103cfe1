"""Meta-training, in one process or several."""
