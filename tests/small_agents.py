"""Settings that make every registered agent small, so that tests over all agents are quick."""

from __future__ import annotations

import dataclasses
from typing import Any

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.registry import AGENTS

SMALL: dict[str, Any] = {
    "hidden_sizes": (8,),
    "hidden_size": 8,
    "head_sizes": (8,),
    "encoder_sizes": (8,),
    "distil_updates": 0,
    "adaptation": "fine_tune",
    "tasks_per_update": 2,
    "batch_size": 8,
    "context_size": 8,
    "updates_per_step": 0.1,
    "adaptation_epochs": 2,
    "adaptation_minibatches": 2,
    "history_length": 4,
    "attention_window": 4,
    "external_rows": 5,
    "decoder_sizes": (8,),
    "step_sizes": (8,),
}
"""Values by the name of a setting, for the agents that have it; `ppo` adapts only if it is told to."""
PRIVILEGED = ("task_mass", "contact")
"""Names of privileged values, for agents that are made without a family."""


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "randomised": ("ppo", {"adaptation": "none"}),
    "scratch": ("ppo", {"adaptation": "scratch"}),
    "film": ("rl2", {"head": "film"}),
    "told_critic": ("rl2", {"privileged_critic": True}),
    "ppo_told_critic": ("ppo", {"adaptation": "none", "privileged_critic": True}),
    "learnt_rule": (
        "maml",
        {
            "adapted": ("head", "context"),
            "context_parameters": 2,
            "inner_rule": "lstm",
            "inner_rule_size": 3,
            "inner_steps": 2,
            "inner_surrogate": "loaded_dice",
            "inner_kl_target": 0.01,
            "exploration_credit": 1.0,
            "baseline": "adapted_value",
        },
    ),
    "implicit": ("maml", {"implicit_strength": 2.0, "inner_steps": 2, "inner_kl": 0.05, "baseline": "value"}),
    "reptile": ("maml", {"outer": "reptile", "inner_steps": 2}),
    "hypernetwork": ("rl2", {"head": "hypernetwork", "generated_sizes": (8,)}),
    "roa": ("rma", {"stages": "roa"}),
    "rma_film": ("rma", {"head": "film"}),
    "estimator_hypernetwork": ("estimator", {"head": "hypernetwork", "generated_sizes": (8,)}),
    "pearl_film": ("pearl", {"head": "film"}),
    "pearl_hypernetwork": ("pearl", {"head": "hypernetwork", "generated_sizes": (8,)}),
    **{memory: ("rl2", {"memory": memory}) for memory in ("lstm", "linear", "transformer", "snail", "external")},
    **{memory: ("rl2", {"memory": memory}) for memory in ("history", "stack")},
}
"""Agents and settings that make other agents of them, by a name for tests."""


def small_values(name: str, **more: Any) -> dict[str, Any]:
    """Values of an agent's settings by name; of `more`, too, those that the agent has."""
    known = {f.name for f in dataclasses.fields(AGENTS[name].settings)}
    return {setting: value for setting, value in {**SMALL, **more}.items() if setting in known}


def small_agent(name: str, **more: Any) -> AgentSettings:
    """Settings of an agent, or of a variant of one."""
    base, own = VARIANTS.get(name, (name, {}))
    return AGENTS[base].settings(**small_values(base, **more, **own))


def small_options(name: str) -> list[str]:
    """The same on the command line."""
    values = small_values(name).items()
    return [f"agent.{setting}={value[0] if isinstance(value, tuple) else value}" for setting, value in values]
