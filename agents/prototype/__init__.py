"""A policy that reads the prototype of its task: the mean of the embeddings of what it met there."""
