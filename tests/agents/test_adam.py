"""Adam on one thread, against torch's own."""

from __future__ import annotations

import torch

from metarl.agents.adam import Adam


def test_a_step_is_torchs_on_one_thread():
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pairs = [(ours, Adam([ours], lr=0.1, fused=True)), (theirs, torch.optim.Adam([theirs], lr=0.1, fused=True))]
    threads, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            for parameter, optimiser in pairs:

                def loss(parameter=parameter) -> float:
                    threads.append(torch.get_num_threads())
                    parameter.grad = parameter.detach().cos()
                    return 0.0

                optimiser.step(loss)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 2] * 3
    assert torch.equal(ours, theirs) and (ours - start).abs().min() > 0.1
