"""Published memories and heads that are settings of `rl2`, by the names that may stand after --agent."""

from __future__ import annotations

from metarl.agents.papers import Paper

RL2_PAPERS: dict[str, Paper] = {
    "lstm": Paper("rl2", {"memory": "lstm"}, "RL2 (Duan 2016) with a long short-term memory (Hochreiter 1997)"),
    "linear": Paper("rl2", {"memory": "linear"}, "RL2 with linear recurrent units (Orvieto 2023)"),
    "transformer": Paper(
        "rl2",
        {"memory": "transformer"},
        "transformer with kept segments (Dai 2019); agent.attention_gate=true: GTrXL (Parisotto 2020)",
    ),
    "snail": Paper("rl2", {"memory": "snail"}, "SNAIL: dilated convolutions and attention over a window (Mishra 2018)"),
    "external": Paper(
        "rl2", {"memory": "external"}, "MANN: an LSTM that reads and writes rows of a memory (Santoro 2016)"
    ),
    "history": Paper(
        "rl2", {"memory": "history"}, "PPO on the last steps, read by a convolution over time (that of RMA, Kumar 2021)"
    ),
    "stack": Paper("rl2", {"memory": "stack"}, "PPO on the last steps side by side, a stack of frames (Mnih 2015)"),
    "film": Paper("rl2", {"head": "film"}, "RL2 whose memory scales and shifts the policy's layers (FiLM, Perez 2018)"),
    "hypernetwork": Paper(
        "rl2", {"head": "hypernetwork"}, "RL2 whose memory generates the policy's weights (Beck 2022, 2023)"
    ),
}
"""Methods by name, all of agent rl2."""
