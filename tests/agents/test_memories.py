"""Memories against something independent: windows by perturbing what lies outside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metarl.agents.cores import scan
from metarl.agents.cores.attention import WindowAttention, skewed
from metarl.agents.cores.core import Core
from metarl.agents.cores.external import ExternalCore, address, least_used
from metarl.agents.cores.external_sequence import read as read_external
from metarl.agents.cores.history import HistoryCore, StackCore, taps
from metarl.agents.cores.layers import draw_layers
from metarl.agents.cores.linear import LinearCore
from metarl.agents.cores.registry import CORES as REGISTRY
from metarl.agents.cores.registry import make_core
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.cores.snail import dilations
from metarl.agents.cores.transformer import TransformerCore

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
    core, inputs = core.double(), draw(length, 1, INPUT).double()  # what is far is small
    plain, found = read(core, inputs), []
    for s in range(length):
        changed = inputs.clone()
        changed[s] += 1.0
        found.append((read(core, changed) != plain).any(-1).squeeze(1).tolist())
    return found


def within(length: int, window: int) -> list[list[bool]]:
    return [[0 <= t - s < window for t in range(length)] for s in range(length)]


REACHES = {"transformer": 126, "snail": 252, "history": 19, "stack": 19}
"""Reach of each memory by its default settings, where it is bounded."""
SHORT: dict[str, Any] = {"attention_window": 5, "memory_layers": 3, "history_length": 7}


@pytest.mark.parametrize("memory", REGISTRY)
def test_a_memory_reads_exactly_as_far_back_as_its_reach(memory: str):
    core = made(memory=memory, **SHORT).double()  # what is far is small
    assert (core.reach is None) == (memory not in REACHES)
    length = 30 if core.reach is None else core.reach + 3
    inputs = draw(length, 1, INPUT).double()
    changed = inputs.clone()
    changed[0] += 1.0
    differs = (read(core, changed) != read(core, inputs)).any(-1).squeeze(1).tolist()
    assert differs == [core.reach is None or t <= core.reach for t in range(length)]


@pytest.mark.parametrize("memory", REACHES)
def test_the_last_features_have_a_derivative_by_as_many_slots_as_the_reach_of_the_default_settings(memory: str):
    core, reach = made(memory=memory).double(), REACHES[memory]
    assert core.reach == reach
    inputs = draw(reach + 3, 1, INPUT).double().requires_grad_()
    last = core.sequence(inputs, core.initial(1))[0][-1, 0]
    [gradient] = torch.autograd.grad(last @ draw(8, seed=2).double(), inputs)  # the sum of a norm is constant
    assert (gradient != 0).any(-1).squeeze(1).tolist() == [False, False, *[True] * (reach + 1)]


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


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 402])
def test_the_scan_is_the_loop_and_so_are_its_gradients(length: int):
    angles, moduli = draw(4, seed=1), torch.tensor([0.2, 0.9, 0.99, 0.999])
    factors = torch.cat([moduli * angles.cos(), moduli * angles.sin()]).double()
    found = []
    for recur in (scan.in_parallel, scan.step_by_step):
        arguments = [factors, draw(length, BATCH, 8).double(), draw(BATCH, 8, seed=2).double()]
        leaves = [x.clone().requires_grad_() for x in arguments]
        states = recur(*leaves)
        (states * draw(length, BATCH, 8, seed=3)).sum().backward()
        found.append([states, *(x.grad for x in leaves)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_the_scan_is_that_of_complex_numbers():
    factor, inputs, state = torch.tensor(0.6 + 0.7j), torch.view_as_complex(draw(9, 2)), torch.tensor(0.3 - 0.2j)
    states = scan.in_parallel(
        torch.view_as_real(factor), torch.view_as_real(inputs)[:, None], torch.tensor([[0.3, -0.2]])
    )
    for u, x in zip(inputs, states, strict=True):
        state = factor * state + u
        torch.testing.assert_close(x[0], torch.view_as_real(state))


def test_a_linear_memory_is_stable_whatever_its_parameters():
    core = made(memory="linear", memory_layers=1)
    assert isinstance(core, LinearCore)
    [block] = core.all_blocks()
    moduli = torch.complex(*block.factors().chunk(2)).abs()
    assert (moduli >= 0.9 - 1e-6).all() and (moduli <= 0.999 + 1e-6).all()
    with torch.no_grad():
        block.log_decay.copy_(torch.tensor([-30.0, -3.0, 0.0, 5.0]))
        block.log_phase.fill_(3.0)
    assert (torch.complex(*block.factors().chunk(2)).abs() <= 1.0 + 1e-6).all()


def test_a_linear_memory_remembers_what_is_long_past():
    core, inputs = made(memory="linear"), draw(300, BATCH, INPUT)
    changed = inputs.clone()
    changed[0] += 1.0
    assert (read(core, changed)[-1] - read(core, inputs)[-1]).abs().max() > 1e-3


def plain_attention(attention: WindowAttention, inputs: Tensor) -> Tensor:
    """Attention [L, heads * value] of inputs [L, input], slot by slot and head by head."""
    features = []
    for t in range(len(inputs)):
        seen = inputs[max(0, t + 1 - attention.window) : t + 1]
        heads = []
        for h, positions in enumerate(attention.positions):
            query, keys, values = (
                x @ layer.weight.chunk(attention.heads)[h].T
                for layer, x in ((attention.query, inputs[t]), (attention.key, seen), (attention.value, seen))
            )
            scores = (keys + positions[-len(seen) :]) @ query / attention.key_size**0.5
            heads.append(scores.softmax(0) @ values)
        features.append(torch.cat(heads))
    return torch.stack(features)


@pytest.mark.parametrize("pieces", [(11,), (3, 1, 1, 6), (1,) * 11])
def test_attention_read_in_pieces_is_that_of_each_slot_to_its_window(pieces: tuple[int, ...]):
    attention, generator = WindowAttention(INPUT, 2, 3, 4, window=5), torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    inputs, (keys, values), count, found = draw(11, BATCH, INPUT), attention.initial(BATCH), torch.zeros(BATCH, 1), []
    for piece in inputs.split(pieces):
        features, keys, values = attention.read(piece.transpose(0, 1), keys, values, count)
        count = count + len(piece)
        found.append(features.transpose(0, 1))
    expected = torch.stack([plain_attention(attention, inputs[:, b]) for b in range(BATCH)], dim=1)
    torch.testing.assert_close(torch.cat(found), expected)


def test_scores_by_place_in_the_window_move_to_their_places_in_the_sequence():
    x = -torch.inf
    found = skewed(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert torch.equal(found, torch.tensor([[1.0, 2.0, 3.0, x], [x, 4.0, 5.0, 6.0]]))


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_transformer_reads_exactly_a_window_a_layer(layers: int, gate: bool):
    core = made(memory="transformer", memory_layers=layers, attention_window=4, attention_gate=gate)
    assert reads(core, 10) == within(10, layers * 3 + 1)


@pytest.mark.parametrize("window", [4, 64])
def test_a_transformer_acts_with_its_cache_as_it_reads_without(window: int):
    """Without: the whole past is read again at each slot."""
    core, inputs = made(memory="transformer", attention_window=window), draw(12, BATCH, INPUT)
    memory = core.initial(BATCH)
    for t, x in enumerate(inputs):
        features, memory = core.step(x, memory)
        torch.testing.assert_close(features, read(core, inputs[: t + 1])[-1])


def test_gates_start_by_nearly_passing_their_stream_on():
    core = made(memory="transformer", attention_gate=True)
    assert isinstance(core, TransformerCore)
    gate = core.all_layers()[0].after_attention
    stream, update = draw(100, 8), 0.1 * draw(100, 8, seed=1)
    assert (gate(stream, update) - stream).abs().mean() < 0.3 * stream.abs().mean()
    torch.testing.assert_close(gate(0 * stream, 0 * update), 0 * stream)


@pytest.mark.parametrize(
    ("window", "expected"), [(2, [1]), (4, [1, 2]), (20, [1, 2, 4, 8, 4]), (64, [1, 2, 4, 8, 16, 32])]
)
def test_dilations_read_a_window(window: int, expected: list[int]):
    assert dilations(window) == expected


@pytest.mark.parametrize("layers", [1, 2])
def test_snail_reads_exactly_two_windows_a_stage(layers: int):
    core = made(memory="snail", memory_layers=layers, attention_window=4)
    length = layers * 6 + 4
    assert reads(core, length) == within(length, layers * 6 + 1)


def test_snail_acts_with_its_cache_as_it_reads_without():
    core, inputs = made(memory="snail", attention_window=4), draw(12, BATCH, INPUT)
    memory = core.initial(BATCH)
    for t, x in enumerate(inputs):
        features, memory = core.step(x, memory)
        torch.testing.assert_close(features, read(core, inputs[: t + 1])[-1])


def test_external_addresses_by_the_cosine_and_not_by_the_size():
    rows = torch.tensor([[[3.0, 0.0], [0.0, 0.1], [-5.0, 0.0], [0.0, 0.0]]])
    keys, strengths = torch.tensor([[[0.5, 0.0], [0.0, 7.0]]]), torch.tensor([[2.0, 100.0]])
    weights = address(keys, strengths, rows)[0]
    torch.testing.assert_close(weights[0], torch.tensor([2.0, 0.0, -2.0, 0.0]).softmax(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 1.0, 0.0, 0.0]), rtol=1e-4, atol=1e-6)


def test_external_finds_the_least_used_rows():
    found = least_used(torch.tensor([[0.5, 0.1, 0.9, 0.0], [3.0, 2.0, 1.0, 4.0]]), 2)
    assert found.argmax(-1).tolist() == [[3, 1], [2, 1]] and torch.equal(found.sum(-1), torch.ones(2, 2))


def external(gate: float) -> ExternalCore:
    """One head over four rows, that writes to the row it read last (gate 1) or to the least used (gate 0)."""
    core = made(memory="external", attention_heads=1, external_rows=4)
    assert isinstance(core, ExternalCore)
    with torch.no_grad():
        core.gates.weight.zero_()
        core.gates.bias.fill_(200.0 * gate - 100.0)
        core.strengths.weight.zero_()
        core.strengths.bias.fill_(50.0)
    return core


def test_external_writes_over_the_least_used_row_alone():
    core, generator = external(gate=0.0), torch.Generator().manual_seed(4)
    rows = torch.randn(1, 4, core.width, generator=generator)
    memory = dict(core.initial(1)) | {"rows": rows, "usage": torch.tensor([[0.4, 0.3, 0.1, 0.2]])}
    memory["weights"] = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    for written in (2, 3, 1, 0):  # a row that was written is used, and is not the next
        _, after = core.step(draw(1, INPUT, seed=written), memory)
        assert [bool((a != b).any()) for a, b in zip(after["rows"][0], memory["rows"][0], strict=True)] == [
            row == written for row in range(4)
        ]
        key = core.keys(after["features"][:, : core.hidden]).tanh()
        torch.testing.assert_close(after["rows"][0, written], key[0])
        assert after["weights"].argmax().item() == written  # the key that was written is found again
        usage = 0.95 * memory["usage"] + after["weights"][0] + torch.eye(4)[written]
        torch.testing.assert_close(after["usage"], usage)
        memory = dict(after)


def test_external_adds_to_the_row_that_it_read_last():
    core = external(gate=1.0)
    rows = draw(1, 4, core.width)
    memory = dict(core.initial(1)) | {"rows": rows, "usage": torch.tensor([[0.4, 0.3, 0.1, 0.2]])}
    memory["weights"] = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])
    _, after = core.step(draw(1, INPUT), memory)
    key = core.keys(after["features"][:, : core.hidden]).tanh()
    expected = rows[0].clone()
    expected[1] += key[0]
    expected[2] = 0.0  # the least used row is cleared
    torch.testing.assert_close(after["rows"][0], expected)


@pytest.mark.parametrize(("length", "size", "heads"), [(2, 1, 1), (30, 3, 4), (9, 20, 2)])
def test_external_reads_and_has_gradients_as_torch_has(length: int, size: int, heads: int, monkeypatch):
    core = made(memory="external", attention_heads=heads, external_rows=6).double()
    found = []
    for whole in (True, False):
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda whole=whole: not whole)  # which is by torch
        inputs = draw(length, size, INPUT).double().requires_grad_()
        memory = {name: state.double().clone() for name, state in core.initial(size).items()}
        for name in ("features", "cell", "rows", "weights"):
            memory[name] = (memory[name] + 0.1 * draw(*memory[name].shape, seed=1)).detach().requires_grad_()
        states, after = [memory[name] for name in ("features", "cell", "rows", "weights")], memory
        if whole:
            features, after = core.sequence(inputs, memory)
        else:
            rows = []
            for x in inputs:
                row, after = core.step(x, after)
                rows.append(row)
            features = torch.stack(rows)
        loss = (features * draw(*features.shape, seed=2)).sum()
        loss = loss + sum(after[name].square().sum() for name in ("cell", "rows", "weights"))
        wanted = [inputs, *states, *core.parameters()]
        found.append([features, *after.values(), *torch.autograd.grad(loss, wanted)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_external_acts_on_the_rows_that_it_learns_on():
    """Where rows are used alike, a choice by other code is another memory."""
    core, inputs = made(memory="external"), draw(9, BATCH, INPUT)
    memory = dict(core.initial(BATCH))
    memory |= {"usage": torch.full_like(memory["usage"], 0.5), "rows": draw(*memory["rows"].shape, seed=1)}
    with torch.no_grad():
        features, after = core.sequence(inputs, memory)
        for x, feature in zip(inputs, features, strict=True):
            found, memory = core.step(x, memory)
            torch.testing.assert_close(found, feature)
    torch.testing.assert_close(memory, after)


def test_the_gradients_of_external_are_central_differences():
    core = made(memory="external", attention_heads=2, external_rows=5).double()
    inputs = draw(6, 2, INPUT).double().requires_grad_()
    memory = {name: state.double() for name, state in core.initial(2).items()}
    assert torch.autograd.gradcheck(lambda x: core.sequence(x, memory)[0], [inputs])


def test_external_keeps_nothing_for_a_backward_pass_that_does_not_come():
    core, inputs = made(memory="external"), draw(5, BATCH, INPUT)
    assert isinstance(core, ExternalCore)
    with torch.no_grad():
        without = core.sequence(inputs, core.initial(BATCH))[0]
    features = core.sequence(inputs, core.initial(BATCH))[0]
    torch.testing.assert_close(without, features, rtol=0, atol=0)
    assert features.requires_grad and not without.requires_grad
    parts = (core.keys, core.strengths, core.gates)
    given = core.of_input(inputs), *core.initial(BATCH).values(), core.of_state.weight
    given = *given, torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    driven, *rest = (x.detach().numpy() for x in given)
    kept = [read_external(driven, tuple(rest[:5]), rest[5], rest[6], rest[7], keep)[2] for keep in (False, True)]
    assert not kept[0] and kept[1]["rows"].shape[0] == len(inputs) + 1


def test_external_needs_a_row_for_each_head():
    with pytest.raises(ValueError, match="agent.external_rows is 3; it must be at least agent.attention_heads, 4"):
        make_core(INPUT, MemorySettings(memory="external", external_rows=3))


def cues(seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [8, 64, 2], numbers and where one is a cue, and the last cue's number at each slot."""
    numbers = torch.rand(8, 64, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0
    cue = (torch.arange(8) % 4 == 0).float().unsqueeze(1).expand_as(numbers)
    return torch.stack([numbers, cue], dim=-1), numbers[torch.arange(8) // 4 * 4]


@pytest.mark.parametrize("memory", REGISTRY)
def test_every_memory_learns_to_recall_a_cue(memory: str):
    core = make_core(2, MemorySettings(memory=memory, hidden_size=16, history_length=5, attention_window=5))  # pyright: ignore[reportArgumentType]
    generator, head = torch.Generator().manual_seed(2), torch.nn.Linear(core.output_size, 1)
    core.initialise(generator)
    draw_layers(head, generator)
    optimiser = torch.optim.Adam([*core.parameters(), *head.parameters()], lr=1e-2)

    def loss(seed: int) -> Tensor:
        inputs, targets = cues(seed)
        return (head(core.sequence(inputs, core.initial(64))[0]).squeeze(-1) - targets).square().mean()

    for step in range(100):
        optimiser.zero_grad()
        loss(step).backward()
        optimiser.step()
    assert loss(1000).item() < 0.25 * cues(1000)[1].var().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("memory", REGISTRY)
def test_on_cuda_a_memory_reads_as_on_the_cpu(memory: str):
    core, inputs = made(memory=memory, history_length=8, attention_window=8, external_rows=5), draw(30, BATCH, INPUT)
    ours = read(core, inputs)
    torch.testing.assert_close(read(core.to("cuda"), inputs.to("cuda")).cpu(), ours, rtol=1e-3, atol=1e-3)
