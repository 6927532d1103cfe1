"""Papers whose method is `maml` with other settings, by the names that may stand after --agent."""

from __future__ import annotations

from metarl.agents.papers import Paper

MAML_PAPERS: dict[str, Paper] = {
    "maml_2017": Paper(
        "maml",
        {"outer": "trpo", "inner_surrogate": "log_likelihood"},
        "MAML as published: TRPO outside, inner gradients of the log-likelihood (Finn 2017)",
    ),
    "fomaml": Paper("maml", {"first_order": True}, "MAML without second derivatives (Finn 2017, section 5.2)"),
    "promp": Paper("maml", {"outer": "promp"}, "proximal meta-policy search (Rothfuss 2019)"),
    "emaml": Paper(
        "maml",
        {"exploration_credit": 1.0},
        "MAML that credits exploration with what adaptation made of it (Stadie 2018)",
    ),
    "reptile": Paper(
        "maml",
        {"outer": "reptile", "inner_steps": 3, "reptile_lr": 0.3},
        "steps towards what each task's inner steps reach, without a meta-gradient (Nichol 2018)",
    ),
    "anil": Paper("maml", {"adapted": ("head",)}, "the last layer alone is adapted (Raghu 2020)"),
    "cavia": Paper(
        "maml",
        {"adapted": ("context",), "context_parameters": 50, "inner_lr": 1.0},
        "inputs of the policy are adapted, its weights are shared by all tasks (Zintgraf 2019; there 50 inputs)",
    ),
    "cavia_film": Paper(
        "maml",
        {"adapted": ("context",), "context_parameters": 50, "context_as": "film", "inner_lr": 1.0},
        "CAVIA whose context scales and shifts the last hidden layer, by FiLM, as the paper does with images",
    ),
    "meta_sgd": Paper("maml", {"inner_rule": "parameter"}, "an inner step size is learnt for each parameter (Li 2017)"),
    "lstm_maml": Paper("maml", {"inner_rule": "lstm"}, "an LSTM makes the inner step of gradient and loss (Ravi 2017)"),
    "imaml": Paper(
        "maml",
        {"implicit_strength": 2.0, "inner_steps": 5},
        "the fixed point of proximal inner steps is differentiated, not the steps (Rajeswaran 2019)",
    ),
    "dice_maml": Paper(
        "maml", {"inner_surrogate": "dice", "outer": "trpo"}, "second derivatives without bias by DiCE (Foerster 2018)"
    ),
    "loaded_dice_maml": Paper(
        "maml",
        {"inner_surrogate": "loaded_dice", "outer": "trpo"},
        "second derivatives by Loaded DiCE, of less variance (Farquhar 2019)",
    ),
    "value_maml": Paper("maml", {"baseline": "value"}, "MAML with a value network as baseline, learnt over all tasks"),
}
"""Methods by name, all of agent maml."""
