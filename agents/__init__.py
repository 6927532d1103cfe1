"""The learners: policies, pure numerics, one file an algorithm."""

if __name__ != "metarl.agents":
    raise ImportError("import metarl.agents, not agents")
