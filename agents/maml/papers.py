"""Papers whose method is `maml` with other settings: what may stand after --agent beside the registered agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """A published method, as settings of an agent."""

    settings: Mapping[str, Any]
    """What differs from the agent's own settings, by name."""
    words: str
    """What it is, in words, and its source."""
    agent: str = "maml"
    """Agent whose settings they are."""


MAML_PAPERS: dict[str, Paper] = {
    "fomaml": Paper({"first_order": True}, "MAML without second derivatives (Finn 2017, section 5.2)"),
    "promp": Paper({"outer": "promp"}, "proximal meta-policy search (Rothfuss 2019)"),
    "emaml": Paper(
        {"exploration_credit": 1.0}, "MAML that credits exploration with what adaptation made of it (Stadie 2018)"
    ),
    "reptile": Paper(
        {"outer": "reptile", "inner_steps": 3, "reptile_lr": 0.3},
        "steps towards what each task's inner steps reach, without a meta-gradient (Nichol 2018)",
    ),
    "anil": Paper({"adapted": ("head",)}, "the last layer alone is adapted (Raghu 2020)"),
    "cavia": Paper(
        {"adapted": ("context",), "context_parameters": 50, "inner_lr": 1.0},
        "inputs of the policy are adapted, its weights are shared by all tasks (Zintgraf 2019; there 50 inputs)",
    ),
    "meta_sgd": Paper({"inner_rule": "parameter"}, "an inner step size is learnt for each parameter (Li 2017)"),
    "lstm_maml": Paper({"inner_rule": "lstm"}, "an LSTM makes the inner step of gradient and loss (Ravi 2017)"),
    "imaml": Paper(
        {"implicit_strength": 2.0, "inner_steps": 5},
        "the fixed point of proximal inner steps is differentiated, not the steps (Rajeswaran 2019)",
    ),
    "dice_maml": Paper(
        {"inner_surrogate": "dice", "outer": "trpo"}, "second derivatives without bias by DiCE (Foerster 2018)"
    ),
    "loaded_dice_maml": Paper(
        {"inner_surrogate": "loaded_dice", "outer": "trpo"},
        "second derivatives by Loaded DiCE, of less variance (Farquhar 2019)",
    ),
    "value_maml": Paper({"baseline": "value"}, "MAML with a value network as baseline, learnt over all tasks"),
}
"""Methods by name, all of agent maml."""
