"""How much adaptation can gain on a distribution of tasks: agents trained and judged alike, from none to an oracle."""
