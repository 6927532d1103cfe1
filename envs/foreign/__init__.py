"""Anyone's Gymnasium environment as a task family."""
