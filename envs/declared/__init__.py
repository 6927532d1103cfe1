"""The task as data: observation, reward and end by the names of terms, for built-in robots and for your own."""
