import inspect
import typing
from pkgutil import resolve_name

import pytest
import torch

from metarl.agents.ranks import Ranks
from metarl.agents.registry import AGENT_SETTINGS, AGENTS, make_agent
from tests.small_agents import PRIVILEGED


@pytest.mark.parametrize("name", AGENTS)
def test_an_entry_names_an_agent_of_its_settings_and_no_class_is_registered_twice(name):
    entry = AGENTS[name]
    make = resolve_name(entry.make)
    hints = {**typing.get_type_hints(make.__init__), **typing.get_type_hints(make)}
    assert hints["settings"] is entry.settings
    expected = [p for p in inspect.signature(make_agent).parameters if p != "privileged" or entry.informed]
    assert list(inspect.signature(make).parameters) == expected
    assert list(AGENT_SETTINGS.values()).count(entry.settings) == 1
    assert (
        type(make_agent(entry.settings(), 3, 2, torch.Generator(), torch.device("cpu"), privileged=PRIVILEGED)) is make
    )


@pytest.mark.parametrize("name", ["ppo", "recurrent_ppo"])
def test_the_agents_of_stable_baselines3_refuse_several_processes(name):
    class Two(Ranks):
        size = 2

    with pytest.raises(ValueError, match=f"^{name} is Stable-Baselines3's and learns in one process, not in 2; train"):
        make_agent(AGENT_SETTINGS[name](), 3, 2, torch.Generator(), torch.device("cpu"), Two())
