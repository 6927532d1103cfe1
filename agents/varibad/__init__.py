"""VariBAD, with its network, settings and evidence lower bound."""
