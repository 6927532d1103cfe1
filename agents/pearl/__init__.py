"""PEARL: soft actor-critic on a latent variable that is inferred from transitions."""
