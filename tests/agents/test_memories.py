"""Memories against something independent: windows by perturbing what lies outside them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metarl.agents.cores.core import Core
from metarl.agents.cores.history import HistoryCore, StackCore, taps
from metarl.agents.cores.registry import make_core
from metarl.agents.cores.settings import MemorySettings

INPUT, BATCH = 5, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(**settings) -> Core:
    core = make_core(INPUT, MemorySettings(hidden_size=8, **settings))
    core.initialise(torch.Generator().manual_seed(1))
    return core


def read(core: Core, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return core.sequence(inputs, core.initial(inputs.shape[1]))[0]


def reads(core: Core, length: int) -> list[list[bool]]:
    """[s][t]: whether the output at slot t depends on the input at slot s."""
    inputs = draw(length, 1, INPUT)
    plain, found = read(core, inputs), []
    for s in range(length):
        changed = inputs.clone()
        changed[s] += 1.0
        found.append((read(core, changed) != plain).any(-1).squeeze(1).tolist())
    return found


def within(length: int, window: int) -> list[list[bool]]:
    return [[0 <= t - s < window for t in range(length)] for s in range(length)]


@pytest.mark.parametrize("window", [2, 3, 9, 10, 11, 19, 20, 33, 50])
@pytest.mark.parametrize("memory", ["history", "stack"])
def test_a_history_reads_exactly_its_last_slots(memory: str, window: int):
    core = made(memory=memory, history_length=window)
    assert reads(core, window + 4) == within(window + 4, window)
    assert core.initial(1)["history"].shape[1] == window - 1


def test_a_history_of_50_has_rmas_kernels_but_for_the_two_slots_that_its_strides_leave_out():
    assert taps(50) == [(8 + 2, 1), (5, 4), (5, 4), (3, 4)]
    assert taps(20) == [(6, 1), (4, 2), (3, 4)] and taps(10) == [(4, 1), (2, 2), (3, 2)] and taps(7) == [(7, 1)]


@pytest.mark.parametrize("window", [10, 20, 50])
def test_a_history_is_a_strided_convolution_of_each_window(window: int):
    core = made(memory="history", history_length=window)
    assert isinstance(core, HistoryCore)
    inputs, strides = draw(window + 3, BATCH, INPUT), {50: (4, 1, 1), 20: (2, 2), 10: (2, 1)}[window]
    for t in (window - 1, window + 2):  # each window is full
        x = core.embed(inputs[t + 1 - window : t + 1]).permute(1, 2, 0)  # [B, C, window]
        for convolution, stride in zip(core.convolutions(), (*strides, 1), strict=True):
            outputs, channels = len(convolution.bias), x.shape[1]
            kernel = convolution.weight.view(outputs, -1, channels).transpose(1, 2)
            x = functional.conv1d(functional.elu(x), kernel, convolution.bias, stride=stride)
        torch.testing.assert_close(read(core, inputs)[t], x.squeeze(-1))


def test_a_stack_is_a_layer_of_the_last_slots_side_by_side():
    core = made(memory="stack", history_length=4)
    assert isinstance(core, StackCore)
    inputs = draw(9, BATCH, INPUT)
    expected = core.layer(torch.cat([inputs[k] for k in (5, 6, 7, 8)], dim=-1)).tanh()
    torch.testing.assert_close(read(core, inputs)[8], expected)
