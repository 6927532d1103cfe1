"""Cores: a sequence is its steps, and an agent that holds one works with any other."""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from metarl.agents import beliefs
from metarl.agents.agent import Rollout, Trial
from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.gru import GruSequence
from metarl.agents.cores.recurrent import LstmCore
from metarl.agents.cores.registry import CORES as REGISTRY
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.sb3.recurrent_ppo import RecurrentPpo
from metarl.agents.sb3.settings import RecurrentPpoSettings
from metarl.agents.trial_ppo.sequence import joined

CPU = torch.device("cpu")
WINDOWS: dict[str, Any] = {"history_length": 4, "attention_window": 4, "external_rows": 5}
"""Windows that are shorter than the sequences of these tests."""
MEMORY = MemorySettings(hidden_size=4, **WINDOWS)
INPUT, HIDDEN, LENGTH, BATCH = 5, 4, 7, 3
OBSERVATION, ACTION, TASKS, ENVS, HORIZON = 3, 2, 2, 2, 4
SETTINGS = Rl2Settings(
    hidden_size=8, head_sizes=(8,), observation_embedding=4, action_embedding=4, reward_embedding=4, **WINDOWS
)


class AttentionCore(Core):
    """One head of causal attention, whose memory is the last keys and values and how many of them there are."""

    name = "attention"
    length = 16

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.output_size = settings.hidden_size
        self.project = nn.Linear(input_size, 3 * settings.hidden_size)

    def initial(self, size: int) -> Memory:
        keys = next(self.parameters()).new_zeros(size, self.length, self.output_size)
        return {"keys": keys, "values": keys, "count": keys.new_zeros(size, dtype=torch.int64)}

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        query, *new = self.project(inputs).chunk(3, dim=-1)
        kept = zip((memory["keys"], memory["values"]), new, strict=True)
        keys, values = (torch.cat([old[:, 1:], x.unsqueeze(1)], dim=1) for old, x in kept)
        count = memory["count"] + 1
        scores = (keys @ query.unsqueeze(-1)).squeeze(-1)  # [B, length]
        empty = torch.arange(self.length, 0, -1) > count.unsqueeze(-1)
        features = scores.masked_fill(empty, -torch.inf).softmax(-1).unsqueeze(1) @ values
        return features.squeeze(1), {"keys": keys, "values": values, "count": count}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features = []
        for x in inputs:
            y, memory = self.step(x, memory)
            features.append(y)
        return torch.stack(features), memory

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.orthogonal_(self.project.weight, generator=generator)
        nn.init.zeros_(self.project.bias)


CORES: dict[str, Any] = {name: resolve_name(place) for name, place in REGISTRY.items()} | {"attention": AttentionCore}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_core(name: str) -> Core:
    core = CORES[name](INPUT, MEMORY)
    core.initialise(torch.Generator().manual_seed(1))
    return core


def read_twice(core: Core) -> Memory:
    """The memory after two inputs of each sequence."""
    return core.sequence(draw(2, BATCH, INPUT, seed=9), core.initial(BATCH))[1]


@pytest.mark.parametrize("name", CORES)
class TestEveryCore:
    def test_a_sequence_is_its_steps(self, name: str):
        core, inputs = make_core(name), draw(LENGTH, BATCH, INPUT)
        memory = read_twice(core)
        features, last = core.sequence(inputs, memory)
        assert features.shape == (LENGTH, BATCH, core.output_size)
        for x, y in zip(inputs, features, strict=True):
            feature, memory = core.step(x, memory)
            torch.testing.assert_close(feature, y)
        assert memory.keys() == last.keys()
        for state, value in memory.items():
            torch.testing.assert_close(value, last[state])

    def test_the_memory_matters_and_sequences_do_not_mix(self, name: str):
        core, inputs = make_core(name), draw(LENGTH, BATCH, INPUT)
        fresh, _ = core.sequence(inputs, core.initial(BATCH))
        later, _ = core.sequence(inputs, read_twice(core))
        assert not torch.allclose(fresh, later)
        for b in range(BATCH):
            alone, _ = core.sequence(inputs[:, b : b + 1], core.initial(1))
            torch.testing.assert_close(alone[:, 0], fresh[:, b])

    def test_the_memory_does_not_grow(self, name: str):
        core = make_core(name)
        new = core.initial(BATCH)
        with torch.no_grad():
            _, last = core.sequence(draw(40, BATCH, INPUT), new)
        assert {state: value.shape for state, value in last.items()} == {x: y.shape for x, y in new.items()}
        assert all(value.isfinite().all() and value.shape[0] == BATCH for value in last.values())

    @pytest.mark.parametrize("chunk", [1, 3, LENGTH])
    def test_gradients_stop_at_chunks_and_values_do_not_change(self, name: str, chunk: int):
        """Against a loop over the steps that lets go of the memory after each chunk."""
        dtype = torch.float64 if name == "external" else torch.float32  # its gradients differ by 5e-5 in float32
        core, weights = make_core(name), draw(LENGTH, BATCH, 1, seed=4).to(dtype)
        before = {state: x.to(dtype) if x.is_floating_point() else x for state, x in read_twice(core).items()}
        core.to(dtype)
        inputs = draw(LENGTH, BATCH, INPUT).to(dtype).requires_grad_()  # they come from embeddings that learn
        features, last = core.truncated(inputs, before, chunk)
        whole, _ = core.truncated(inputs, before, 0)
        torch.testing.assert_close(features, whole)
        memory, expected = before, []
        for t, x in enumerate(inputs):
            if t and t % chunk == 0:
                memory = {state: value.detach() for state, value in memory.items()}
            feature, memory = core.step(x, memory)
            expected.append(feature)
        found = [
            torch.autograd.grad((y * weights).sum(), [inputs, *core.parameters()], retain_graph=True)
            for y in (features, torch.stack(expected), whole)
        ]
        torch.testing.assert_close(found[0], found[1])
        if chunk < LENGTH:
            assert not all(torch.allclose(x, y) for x, y in zip(found[0], found[2], strict=True))
        assert memory.keys() == last.keys() and not any(value.requires_grad for value in last.values())

    def test_its_parameters_follow_from_the_generator_alone(self, name: str):
        state, first, second = torch.get_rng_state(), CORES[name](INPUT, MEMORY), CORES[name](INPUT, MEMORY)
        torch.set_rng_state(state)
        for core in (first, second):
            core.initialise(torch.Generator().manual_seed(2))
        assert torch.equal(torch.get_rng_state(), state)
        for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_the_setting_names_every_memory():
    assert get_args(get_type_hints(MemorySettings)["memory"]) == tuple(REGISTRY)


def test_a_gru_is_torchs_cell_step_by_step():
    core = make_core("gru")
    cell, hidden = nn.GRUCell(INPUT, HIDDEN), torch.zeros(BATCH, HIDDEN)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in core.state_dict().items()})
    inputs = draw(LENGTH, BATCH, INPUT)
    features, last = core.sequence(inputs, core.initial(BATCH))
    for x, y in zip(inputs, features, strict=True):
        hidden = cell(x, hidden)
        torch.testing.assert_close(y, hidden)
    torch.testing.assert_close(last["hidden"], hidden)


PARTS = ("inputs", "hidden", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def gru_parts(length: int, size: int, width: int) -> tuple[nn.GRU, list[Tensor]]:
    """torch's GRU in double precision with random parameters; inputs, first state, and the parameters."""
    net = nn.GRU(INPUT, width, dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate(net.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=seed))
    shapes = (length, size, INPUT), (size, width)
    leaves = [draw(*shape, seed=10 + i).double().requires_grad_() for i, shape in enumerate(shapes)]
    return net, [*leaves, *net.parameters()]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("length", "size", "width"), [(2, 1, 1), (7, 3, 4), (50, 10, 17)])
def test_a_gru_and_its_gradients_are_torchs(length: int, size: int, width: int, dtype: torch.dtype, tolerance: float):
    net, parts = gru_parts(length, size, width)
    expected, _ = net(parts[0], parts[1].unsqueeze(0))
    weights = draw(*expected.shape, seed=20).double()
    wanted = torch.autograd.grad((expected * weights).sum(), parts)
    ours = [part.detach().to(dtype).requires_grad_() for part in parts]
    features = GruSequence.apply(*ours)
    found = torch.autograd.grad((features * weights.to(dtype)).sum(), ours)
    assert features.dtype == dtype
    torch.testing.assert_close(features.double(), expected, rtol=tolerance, atol=tolerance)
    for name, x, y in zip(PARTS, found, wanted, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=tolerance, atol=tolerance * float(y.abs().max()), msg=name)


def test_the_gradients_of_a_gru_are_central_differences():
    _, parts = gru_parts(5, 2, 3)
    assert torch.autograd.gradcheck(GruSequence.apply, tuple(parts))


def test_a_gru_has_gradients_where_inputs_and_gradient_are_views_and_need_none_of_the_inputs():
    net, (inputs, hidden, *parameters) = gru_parts(6, 3, 4)
    inputs = inputs.detach().transpose(0, 1).contiguous().transpose(0, 1)
    expected = net(inputs, hidden.unsqueeze(0))[0].sum()  # the gradient of a sum is one number, expanded
    found = GruSequence.apply(inputs, hidden, *parameters).sum()
    ours, theirs = (torch.autograd.grad(x, [hidden, *parameters]) for x in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_gru_learns_by_its_own_backward_pass_and_leaves_torchs_threads_alone():
    core, threads = make_core("gru"), torch.get_num_threads()
    features, _ = core.sequence(draw(LENGTH, BATCH, INPUT), core.initial(BATCH))
    assert type(features.grad_fn).__name__ == "GruSequenceBackward"
    features.sum().backward()
    assert torch.get_num_threads() == threads


def test_an_lstm_is_torchs_cell_step_by_step():
    core = make_core("lstm")
    assert isinstance(core, LstmCore)
    cell, states = nn.LSTMCell(INPUT, HIDDEN), (torch.zeros(BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN))
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in core.lstm.state_dict().items()})
    inputs = draw(LENGTH, BATCH, INPUT)
    features, last = core.sequence(inputs, core.initial(BATCH))
    for x, y in zip(inputs, features, strict=True):
        states = cell(x, states)
        torch.testing.assert_close(y, states[0])
    torch.testing.assert_close((last["hidden"], last["cell"]), states)


def test_every_gate_of_a_gru_is_orthogonal():
    for gate in make_core("gru").get_parameter("weight_hh_l0").chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN))


def rl2(name: str, seed: int = 0, **settings: Any) -> Rl2:
    kind: Any = type("Rl2With", (Rl2,), {"make_core": staticmethod(CORES[name])})
    agent = kind(replace(SETTINGS, **settings), OBSERVATION, ACTION, torch.Generator().manual_seed(seed), CPU)
    with torch.no_grad():  # a policy that hardly depends on its memory would hide a wrong one
        agent.network.mean.weight.copy_(draw(ACTION, 8))
    return agent


def play(agent: Rl2, shots: int = 2) -> tuple[Trial, list[Tensor], Any]:
    """A trial on random data, the means that its actions were drawn about, and the belief at its end."""
    belief, trial, means = agent.begin(TASKS, ENVS, ()), Trial([], []), []
    lengths = torch.tensor([[4, 2], [1, 3]])
    for shot in range(shots):
        trial.beliefs.append(belief)
        observations, rewards = draw(HORIZON, TASKS, ENVS, OBSERVATION, seed=shot), draw(HORIZON, TASKS, ENVS, seed=8)
        valid = torch.arange(HORIZON).view(-1, 1, 1) < lengths
        actions = torch.zeros(HORIZON, TASKS, ENVS, ACTION)
        for t in range(HORIZON):
            means.append(agent.act(belief, observations[t], None)[0])
            actions[t], belief = agent.act(belief, observations[t], draw(TASKS, ENVS, ACTION, seed=t))
            belief = agent.observe(belief, rewards[t] * valid[t], t >= lengths - 1)
        ends = torch.arange(HORIZON).view(-1, 1, 1) == lengths - 1
        final = draw(TASKS, ENVS, OBSERVATION, seed=7)
        rollout = Rollout(observations, actions, rewards * valid, ends, torch.zeros_like(ends), valid, final)
        trial.rollouts.append(rollout)
        belief = agent.adapt(belief, rollout, ())
    return trial, means, belief


@pytest.mark.parametrize("name", CORES)
class TestRl2WithEveryCore:
    def test_it_learns_from_what_it_acted_on(self, name: str):
        agent = rl2(name)
        trial, means, _ = play(agent)
        sequence = agent.sequence(trial)
        found, _ = agent.evaluate(sequence)
        expected = [
            mean[trial.rollouts[k // HORIZON].valid[k % HORIZON]] for k, mean in enumerate(means)
        ]  # in env time; those of training are sorted by env
        ours, theirs = found[sequence.steps], torch.cat(expected)
        order = [x[:, 0].sort().indices for x in (ours, theirs)]
        torch.testing.assert_close(ours[order[0]], theirs[order[1]], rtol=1e-4, atol=1e-5)
        before = [p.clone() for p in agent.core.parameters()]
        metrics = agent.meta_update(trial, torch.Generator().manual_seed(3))
        assert torch.tensor(list(metrics.values())).isfinite().all()
        assert not any(torch.equal(p, q) for p, q in zip(agent.core.parameters(), before, strict=True))

    def test_its_belief_is_joined_saved_and_loaded(self, name: str):
        agent = rl2(name)
        _, _, belief = play(agent)
        state = beliefs.saved(belief)
        assert set(state["memory"]) == set(agent.core.initial(1))
        loaded = beliefs.load(agent, state)
        swapped = beliefs.join([loaded, belief], torch.tensor([3, 0]))
        seen = draw(TASKS, ENVS, OBSERVATION)
        actions = agent.act(belief, seen, None)[0]
        assert torch.equal(agent.act(loaded, seen, None)[0], actions)
        torch.testing.assert_close(agent.act(swapped, seen.flip(0), None)[0], actions.flip(0))

    def test_the_deployed_policy_acts_as_it_does(self, name: str):
        agent = rl2(name)
        belief = agent.begin(1, 1, ())
        policy = agent.deployable(belief)
        inputs = dict(policy.inputs)
        assert policy.outputs == ("action", *(f"next_{state}" for state in agent.core.initial(1)))
        for t in range(3):
            seen = draw(1, 1, OBSERVATION, seed=t)
            inputs["observation"] = seen[0]
            with torch.no_grad():
                returned = dict(zip(policy.outputs, policy.module(*inputs.values()), strict=True))
            actions, belief = agent.act(belief, seen, None)
            torch.testing.assert_close(returned["action"], actions[0])
            belief = agent.observe(belief, torch.full((1, 1), 0.5), torch.zeros(1, 1, dtype=torch.bool))
            inputs |= {state: returned[f"next_{state}"] for state in belief.memory}
            inputs |= {"previous_action": actions[0], "previous_reward": torch.full((1, 1), 0.5)}
            inputs["episode_start"] = torch.zeros(1, 1)

    def test_it_goes_on_from_its_checkpoint(self, name: str):
        agent, twin = rl2(name), rl2(name, seed=5)
        agent.meta_update(play(agent)[0], torch.Generator().manual_seed(3))
        twin.load_state_dict(agent.state_dict())
        seen = draw(TASKS, ENVS, OBSERVATION)
        for ours, theirs in zip(*(a.network.state_dict().values() for a in (agent, twin)), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(*(a.act(a.begin(TASKS, ENVS, ()), seen, None)[0] for a in (agent, twin)))


def test_rl2_stops_gradients_at_chunks():
    trial, _, _ = play(rl2("gru"))
    found = {}
    for chunk in (0, 3, 100):
        agent = rl2("gru", chunk=chunk)
        whole = agent.sequence(trial)
        pieces = agent.pieces(whole, remembering=True)
        means, values = (joined(x, len(whole.steps)) for x in agent.evaluate(pieces))
        gradients = torch.autograd.grad(means.sum() + values.sum(), list(agent.core.parameters()))
        found[chunk] = means, torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(found[3][0], found[0][0])
    torch.testing.assert_close(found[100], found[0])
    assert not torch.allclose(found[3][1], found[0][1])


def test_a_checkpoint_with_another_core_is_refused():
    with pytest.raises(ValueError, match=r"lstm\.lstm\.weight_ih_l0 has shape .* here, nothing in the state"):
        rl2("lstm").load_state_dict(rl2("gru").state_dict())


def test_parameters_have_the_names_that_checkpoints_have_always_held():
    names = [name for name in rl2("gru").network.state_dict() if name.startswith("gru")]
    assert names == ["gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0", "gru.bias_hh_l0"]
    agent = RecurrentPpo(
        RecurrentPpoSettings(hidden_size=8, head_sizes=(8,)), OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU
    )
    assert isinstance(agent.core, LstmCore) and agent.core.lstm is agent.model.policy.lstm_actor
    assert "lstm_actor.weight_ih_l0" in agent.state_dict()["policy"]
