"""Agents start without torch's compiler and sympy, and networks are made without the global generator."""

import subprocess
import sys

import torch
from torch import nn

from metarl.agents.moments import Moments
from metarl.agents.registry import AGENTS
from metarl.agents.startup import blank


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.moments = Moments(3)
        self.lstm = nn.LSTM(4, 5)


def test_a_blank_network_is_on_the_cpu_and_takes_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    network = blank(Network)
    assert torch.equal(torch.random.get_rng_state(), before)
    tensors = network.state_dict()
    assert tensors.keys() == Network().state_dict().keys()
    assert {x.device.type for x in tensors.values()} == {"cpu"}
    assert {k: x.dtype for k, x in tensors.items()} == {k: x.dtype for k, x in Network().state_dict().items()}


def test_its_parameters_are_those_that_it_computes_with():
    network, plain = blank(Network), Network()
    for own, others in zip(network.parameters(), plain.parameters(), strict=True):
        own.data.copy_(others.data)
    inputs = torch.randn(2, 3)
    for run in (network, plain):
        run.lstm(run.layers(inputs))[0].sum().backward()
    for own, others in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, others.grad, rtol=0, atol=0)


def test_agents_are_made_saved_and_loaded_without_the_compiler():
    script = """if True:
        import sys, torch
        from metarl.agents.registry import AGENTS, make_agent
        from tests.small_agents import PRIVILEGED, small_agent

        def make(agent):
            settings, generator = small_agent(agent), torch.Generator().manual_seed(1)
            return make_agent(settings, 4, 2, generator, torch.device("cpu"), privileged=PRIVILEGED)

        for agent in AGENTS:
            make(agent).load_state_dict(make(agent).state_dict())
            print(agent, *sys.modules.keys() & {"torch._dynamo", "sympy"})
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, list(AGENTS)), done.stderr
