"""The world: task families, their parameters, batched simulation, the Gymnasium adapter."""

if __name__ != "metarl.envs":
    raise ImportError("import metarl.envs, not envs")
