"""The products of stacked policies, whose narrow ones are computed as their transposes."""

from __future__ import annotations

import pytest
import torch

from metarl.agents.maml.inner import MOST_STEPS, InnerLoop
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.policy import GaussianPolicy, Product


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


OPERANDS = {"NN": ((3, 5, 4), (3, 4, 2)), "TN": ((3, 5, 4), (3, 5, 2)), "NT": ((3, 5, 2), (3, 4, 2))}


@pytest.mark.parametrize("kind", OPERANDS)
def test_a_product_and_its_derivatives_are_those_of_matrices(kind: str) -> None:
    a, b = (draw(*shape) for shape in OPERANDS[kind])
    left, right = (x.mT if turned == "T" else x for x, turned in zip((a, b), kind, strict=True))
    found, expected = Product.apply(a, b, kind), left @ right
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()  # pyright: ignore[reportOptionalMemberAccess]
    weights = draw(*expected.shape)
    for of_found, of_expected in zip(
        torch.autograd.grad((weights * found).sum(), (a, b)),
        torch.autograd.grad((weights * expected).sum(), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(of_found, of_expected)
    assert torch.autograd.gradgradcheck(lambda a, b: Product.apply(a, b, kind), (a, b))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [2, 20])
def test_the_means_are_those_of_a_loop_over_tasks(shared: bool, actions: int) -> None:
    policy = GaussianPolicy(3, actions, (5, 4), "tanh", 1e-6)
    size = sum(policy.pieces.values())
    parameters, observations = draw(1 if shared else 6, size).detach(), draw(6, 7, 3).detach()
    before = observations.clone()
    means = policy(policy.layers(parameters), observations).mean
    assert torch.equal(observations, before)
    for task in range(6):
        x, at, flat = observations[task], 0, parameters[0 if shared else task]
        for layer, (i, o) in enumerate(policy.shapes):
            x = x @ flat[at : at + i * o].view(i, o) + flat[at + i * o : at + i * o + o]
            at += i * o + o
            x = torch.tanh(x) if layer < 2 else x
        torch.testing.assert_close(means[task], x)


def test_a_backward_pass_has_as_many_tasks_as_fit_the_cache() -> None:
    policy = GaussianPolicy(3, 2, (5, 4), "tanh", 1e-6)
    of_cpu = InnerLoop(MamlSettings(), policy).chunks
    assert list(of_cpu(torch.empty(5, MOST_STEPS // 2))) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(of_cpu(torch.empty(2, 3 * MOST_STEPS))) == [slice(0, 1), slice(1, 2)]
    assert list(of_cpu(torch.empty(5, MOST_STEPS // 2, device="meta"))) == [slice(0, 5)]
    chosen = InnerLoop(MamlSettings(tasks_per_chunk=3), policy).chunks
    assert list(chosen(torch.empty(5, 1))) == [slice(0, 3), slice(3, 5)]
