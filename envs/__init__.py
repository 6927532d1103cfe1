"""Task families, their parameters, batched simulation, and adapters such as Gymnasium's."""

if __name__ != "metarl.envs":
    raise ImportError("import metarl.envs, not envs")
