"""Registry of agents. Does not import torch: an agent's module is imported when the agent is made."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.estimator.settings import EstimatorSettings
from metarl.agents.maml.papers import MAML_PAPERS
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.papers import Paper
from metarl.agents.pearl.settings import PearlSettings
from metarl.agents.prototype.settings import PrototypeSettings
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.papers import RL2_PAPERS
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.rma.papers import RMA_PAPERS
from metarl.agents.rma.settings import RmaSettings
from metarl.agents.sb3.settings import PpoSettings, RecurrentPpoSettings
from metarl.agents.varibad.settings import VaribadSettings
from metarl.bounds import check

if TYPE_CHECKING:
    import torch

    from metarl.agents.learning import Learner


class AgentEntry(NamedTuple):
    """A registered agent."""

    settings: type[AgentSettings]
    """Class of its settings."""
    make: str
    """Class of the agent, or a function that makes it, as module:name."""
    informed: bool = False
    """Whether the agent is made with the names of the privileged values, as some of its settings train it with them."""


AGENTS: dict[str, AgentEntry] = {
    "maml": AgentEntry(MamlSettings, "metarl.agents.maml.maml:Maml"),
    "rl2": AgentEntry(Rl2Settings, "metarl.agents.rl2.rl2:Rl2", informed=True),
    "pearl": AgentEntry(PearlSettings, "metarl.agents.pearl.pearl:Pearl"),
    "rma": AgentEntry(RmaSettings, "metarl.agents.rma.rma:Rma", informed=True),
    "estimator": AgentEntry(EstimatorSettings, "metarl.agents.estimator.estimator:Estimator", informed=True),
    "distilled": AgentEntry(DistilledSettings, "metarl.agents.distilled.distilled:Distilled", informed=True),
    "varibad": AgentEntry(VaribadSettings, "metarl.agents.varibad.varibad:Varibad", informed=True),
    "prototype": AgentEntry(PrototypeSettings, "metarl.agents.prototype.prototype:Prototype"),
    "ppo": AgentEntry(PpoSettings, "metarl.agents.sb3.ppo:Ppo", informed=True),
    "recurrent_ppo": AgentEntry(RecurrentPpoSettings, "metarl.agents.sb3.recurrent_ppo:RecurrentPpo"),
}
"""Every agent by name."""
PAPERS: dict[str, Paper] = {**MAML_PAPERS, **RL2_PAPERS, **RMA_PAPERS}
"""Published methods that are an agent with other settings, by name."""
AGENT_SETTINGS: dict[str, type[AgentSettings]] = {name: entry.settings for name, entry in AGENTS.items()}
"""Settings class of every agent by name."""


def make_agent(
    settings: AgentSettings,
    observation_size: int,
    action_size: int,
    generator: torch.Generator,
    device: torch.device,
    ranks: Ranks = ALONE,
    privileged: Sequence[str] = (),
) -> Learner:
    """Return the agent that the settings describe, with initial parameters drawn from the generator.

    ranks: processes that train it. privileged: names of the privileged values of training, see `Agent.inform`.
    ValueError for a setting that is out of its bounds, and for several processes if the agent trains in one only.
    """
    from metarl.agents.startup import spare_compiler

    check(settings, "agent")
    spare_compiler()
    entry = next(entry for entry in AGENTS.values() if entry.settings is type(settings))
    told = {"privileged": privileged} if entry.informed else {}
    return resolve_name(entry.make)(settings, observation_size, action_size, generator, device, ranks, **told)
