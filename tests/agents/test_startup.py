"""Agents start without torch's compiler and sympy, and networks are made without the global generator."""

import subprocess
import sys

import pytest
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


def in_a_process_of_its_own(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_agents_are_made_saved_loaded_and_stepped_without_the_compiler():
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

        for kind in (torch.optim.Adam, torch.optim.AdamW):
            layer = torch.nn.Linear(2, 1)
            optimiser = kind(layer.parameters())
            layer(torch.ones(1, 2)).sum().backward()
            optimiser.step()
            print(kind.__name__, *sys.modules.keys() & {"torch._dynamo", "sympy"})
    """
    assert in_a_process_of_its_own(script) == [*AGENTS, "Adam", "AdamW"]


def test_an_optimisers_steps_are_torchs_before_and_after_the_compiler_is_there():
    script = """if True:
        import sys
        import torch
        from metarl.agents.startup import spare_compiler

        def parameters(kind, options, steps):
            x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
            optimiser = kind([x], lr=0.1, **options)
            called = []
            optimiser.register_step_post_hook(lambda *_: called.append(1))
            for _ in range(steps):
                optimiser.zero_grad()
                (x**2).sum().backward()
                optimiser.step()
            assert called == [1] * steps
            return x.detach().tolist()

        def through_the_step():
            target = torch.tensor(3.0, requires_grad=True)
            x = torch.nn.Parameter(torch.tensor(1.0))
            leaf = x.clone()
            optimiser = torch.optim.Adam([leaf], lr=0.1, differentiable=True)
            leaf.grad = 2 * (leaf - target)
            optimiser.step()
            return torch.autograd.grad(leaf, target)[0].item()

        cases = [(kind, o) for kind in (torch.optim.Adam, torch.optim.AdamW) for o in ({}, {"fused": True})]
        for _ in range(2):
            spare_compiler()
        spared = [parameters(kind, o, 3) for kind, o in cases]
        gradient = through_the_step()
        assert "torch._dynamo" not in sys.modules
        import torch._dynamo
        assert [parameters(kind, o, 3) for kind, o in cases] == spared
        assert through_the_step() == gradient != 0
        print(*cases[0][0].step.__name__.split(), len(spared))
    """
    assert in_a_process_of_its_own(script) == ["step", "4"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ["PASSIVE", "2000"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
    ],
)
def test_threads_that_wait_spin_for_a_little_where_the_user_says_nothing(given: dict[str, str], found: list[str]):
    script = f"""if True:
        import os
        names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
        for name in names:
            os.environ.pop(name, None)
        os.environ.update({given})
        import metarl
        print(*map(os.environ.get, names))"""
    assert in_a_process_of_its_own(script) == found
