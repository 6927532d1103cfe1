"""Comparisons of embeddings against hand-computed episodes; encoder, calibration and few-shot draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.metric.calibration import auroc, fit_unknown, probabilities, reliability, temperature
from metarl.agents.metric.encoder import EpisodeEncoder, steps_of
from metarl.agents.metric.few_shot import Episodes, Metric, draw, train
from metarl.agents.metric.heads import HEADS, Head, Matching, Relation, novelty
from metarl.agents.metric.settings import MetricSettings

SUPPORT = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 4.0], [0.0, 6.0]]])  # prototypes (1, 0) and (0, 5)
QUERIES = torch.tensor([[1.0, 1.0], [0.0, 3.0]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(name: str, **settings) -> Head:
    made = HEADS[name](MetricSettings(head=name, **{"embedding_size": 2, **settings}))
    made.initialise(seeded())
    return made


class TestHeads:
    def test_prototypes_by_hand(self):
        own = head("prototypical")
        own.get_parameter("log_scale").data.fill_(math.log(0.5))
        expected = -0.5 * torch.tensor([[1.0, 17.0], [10.0, 4.0]])
        torch.testing.assert_close(own(QUERIES, SUPPORT), expected)
        torch.testing.assert_close(novelty(expected), torch.tensor([0.5, 2.0]))

    def test_cosines_by_hand(self):
        own = head("cosine")
        own.get_parameter("log_scale").data.zero_()
        half = 1 / math.sqrt(2)
        torch.testing.assert_close(own(QUERIES, SUPPORT), torch.tensor([[half, half], [0.0, 1.0]]))

    def test_attention_by_hand(self):
        """Without context, the probability of a class is the attention that its shots get."""
        own = head("matching")
        assert isinstance(own, Matching)
        for layer in (own.given, own.project):
            for parameter in layer.parameters():
                parameter.data.zero_()
        own.get_parameter("log_scale").data.zero_()
        support = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [0.0, -3.0]]])
        shares = own(torch.tensor([[5.0, 0.0]]), support).softmax(dim=1)
        e = [math.exp(c) for c in (1.0, 0.0, -1.0, 0.0)]
        torch.testing.assert_close(shares[0], torch.tensor([(e[0] + e[1]) / sum(e), (e[2] + e[3]) / sum(e)]))

    def test_full_context_embeddings_by_hand(self):
        """Vinyals 2016, eq. 3 to 6: one round of the query's LSTM, then another that has read the support."""
        own = head("matching", context_steps=2)
        assert isinstance(own, Matching)
        weights = np.random.default_rng(0)
        for parameter in own.parameters():
            parameter.data.copy_(torch.from_numpy(weights.normal(size=parameter.shape)))
        rows, logs = weights.normal(size=(3, 2)), np.log([0.5, 0.25, 0.25])
        w = {name: parameter.detach().double().numpy() for name, parameter in own.named_parameters()}

        def softmax(x: np.ndarray) -> np.ndarray:
            return np.exp(x) / np.exp(x).sum()

        context = []
        for row in rows:
            attention = softmax(
                [
                    (w["wanted.weight"] @ row) @ (w["offered.weight"] @ other) / math.sqrt(2) + log
                    for other, log in zip(rows, logs, strict=True)
                ]
            )
            context.append(row + sum(a * (w["given.weight"] @ other) for a, other in zip(attention, rows, strict=True)))
        context = np.array(context)
        query, hidden, cell, found = weights.normal(size=2), np.zeros(4), np.zeros(4), np.zeros(2)
        for _ in range(2):
            gates = w["cell.weight_ih"] @ query + w["cell.bias_ih"] + w["cell.weight_hh"] @ hidden + w["cell.bias_hh"]
            i, f, g, o = gates.reshape(4, 4)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            cell = f * cell + i * np.tanh(g)
            found = query + w["project.weight"] @ (o * np.tanh(cell)) + w["project.bias"]
            hidden = np.concatenate([found, softmax(context @ found + logs) @ context])
        given, of_rows = torch.from_numpy(rows).float(), torch.from_numpy(logs).float()
        in_context = own.in_context(given, of_rows)
        np.testing.assert_allclose(in_context.detach().numpy(), context, rtol=1e-5)
        attending = own.attending(torch.from_numpy(query[None]).float(), in_context, of_rows)
        np.testing.assert_allclose(attending[0].detach().numpy(), found, rtol=1e-4)

    def test_full_context_embeddings_change_with_the_rest_of_the_support(self):
        own = head("matching")
        assert isinstance(own, Matching)
        other = SUPPORT.clone()
        other[1] += 3.0
        equal = torch.zeros(len(SUPPORT.flatten(0, 1)))
        rows = [own.in_context(s.flatten(0, 1), equal) for s in (SUPPORT, other)]
        assert not torch.allclose(rows[0][:2], rows[1][:2])
        assert not torch.allclose(own.attending(QUERIES, rows[0], equal), own.attending(QUERIES, rows[1], equal))

    def test_relation_by_hand(self):
        own = head("relation", relation_sizes=(1,))
        assert isinstance(own, Relation)
        first, last = (layer for layer in own.layers if isinstance(layer, torch.nn.Linear))
        first.weight.data.copy_(torch.tensor([[1.0, 0.0, 0.0, 2.0, 0.5, 0.0]]))  # mean x + 2 query y + .5 (dx)^2
        first.bias.data.fill_(-1.0)
        last.weight.data.fill_(3.0)
        last.bias.data.fill_(0.25)
        scores = own(QUERIES, SUPPORT)
        inside = 1.0 + 2.0 * 3.0 + 0.5 * 1.0 - 1.0  # class 0, query 1
        assert scores[1, 0].item() == pytest.approx(3.0 * inside / (1 + math.exp(-inside)) + 0.25)
        assert own.loss(torch.tensor([[0.0, 0.0]]), torch.tensor([0])).item() == pytest.approx(0.25)

    @pytest.mark.parametrize("name", HEADS)
    def test_the_order_of_shots_and_classes_changes_nothing(self, name: str):
        own = head(name, embedding_size=5)
        support, queries = torch.randn(4, 3, 5, generator=seeded(1)), torch.randn(6, 5, generator=seeded(2))
        scores = own(queries, support)
        assert scores.shape == (6, 4)
        torch.testing.assert_close(own(queries, support[:, [2, 0, 1]]), scores)
        torch.testing.assert_close(own(queries, support[[3, 1, 0, 2]]), scores[:, [3, 1, 0, 2]])
        torch.testing.assert_close(own(queries[[5, 0]], support), scores[[5, 0]])  # nor do the other queries

    @pytest.mark.parametrize("name", HEADS)
    def test_classes_of_unlike_numbers_of_shots_weigh_the_same_as_if_each_was_repeated(self, name: str):
        own = head(name, embedding_size=5)
        support, queries = torch.randn(2, 3, 5, generator=seeded(1)), torch.randn(6, 5, generator=seeded(2))
        shares = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])  # the third of the second class is not there
        repeated = torch.stack([support[0].repeat(2, 1), support[1, :2].repeat(3, 1)])
        torch.testing.assert_close(own(queries, support, shares), own(queries, repeated), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own(queries, support, torch.full((2, 3), 1 / 3)), own(queries, support))


def encoder(**settings) -> EpisodeEncoder:
    made = EpisodeEncoder(MetricSettings(hidden_sizes=(8, 8), embedding_size=4, **settings), 3, 2)
    made.initialise(seeded())
    return made.eval()


class TestEncoder:
    STEPS = torch.randn(9, 5, 8, generator=seeded(3))
    LENGTHS = torch.tensor([9, 9, 4, 1, 7])

    def test_steps_are_observation_change_action_and_reward(self):
        observations = torch.arange(6.0).reshape(3, 1, 2) ** 2
        actions, rewards = torch.tensor([[[7.0]], [[8.0]]]), torch.tensor([[-1.0], [-2.0]])
        expected = torch.tensor([[0.0, 1.0, 4.0, 8.0, 7.0, -1.0], [4.0, 9.0, 12.0, 16.0, 8.0, -2.0]])
        torch.testing.assert_close(steps_of(observations, actions, rewards)[:, 0], expected)
        torch.testing.assert_close(steps_of(observations, actions, None)[:, 0], expected[:, :-1])

    @pytest.mark.parametrize("reader", ["set", "gru"])
    def test_several_durations_at_once_are_those_of_shorter_episodes(self, reader):
        own = encoder(reader=reader)
        found = own(self.STEPS, self.LENGTHS, [2, 6, 9])
        for k, until in enumerate((2, 6, 9)):
            for b, length in enumerate(self.LENGTHS.tolist()):
                count = min(length, until)
                alone = own(self.STEPS[:count, b : b + 1], torch.tensor([count]), [count])[0, 0]
                torch.testing.assert_close(found[k, b], alone)

    @pytest.mark.parametrize(("reader", "free"), [("set", True), ("gru", False)])
    def test_a_set_has_no_order(self, reader, free):
        own = encoder(reader=reader, window=1)
        whole = torch.full((5,), 9)
        found, turned = (own(steps, whole, [9]) for steps in (self.STEPS, self.STEPS.flip(0)))
        assert torch.allclose(found, turned, atol=1e-5) is free

    def test_steps_are_standardised_by_those_that_were_taken(self):
        own, steps = encoder(), 5.0 + 3.0 * self.STEPS
        steps[4:, 2] = 1e6
        own.standardise_by(steps[:, 2:3], self.LENGTHS[2:3])
        torch.testing.assert_close(own.mean, steps[:4, 2].mean(dim=0))


class TestCalibration:
    def test_temperature_gives_the_share_of_right_answers(self):
        """Of two classes with scores (s, 0), of which a share p is right: softmax(s / T) = p."""
        scores = torch.tensor([3.0, 0.0]).expand(10, 2)
        classes = torch.tensor([0] * 8 + [1] * 2)
        assert temperature(scores, classes) == pytest.approx(3.0 / math.log(4.0), rel=1e-4)

    def test_reliability_by_hand(self):
        found = reliability(torch.tensor([0.95, 0.91, 0.55, 0.65]), torch.tensor([True, False, True, True]))
        torch.testing.assert_close(found.share[[5, 6, 9]], torch.tensor([0.25, 0.25, 0.5]).double())
        assert found.error == pytest.approx(0.5 * (0.93 - 0.5) + 0.25 * 0.45 + 0.25 * 0.35)
        assert found.confidence[0].isnan()

    def test_reliability_of_queries_that_count_unlike(self):
        found = reliability(torch.tensor([0.95, 0.95]), torch.tensor([True, False]), weights=torch.tensor([3.0, 1.0]))
        assert found.accuracy[-1] == 0.75 and found.error == pytest.approx(0.2)

    def test_auroc_counts_ties_half(self):
        assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == pytest.approx(3.5 / 4)
        assert auroc(torch.zeros(4), torch.zeros(3)) == 0.5

    def test_unknown_has_the_false_alarms_that_are_asked_for(self):
        known, unknown = torch.randn(4000, generator=seeded(1)), 3.0 + torch.randn(4000, generator=seeded(2))
        found = fit_unknown(known, unknown, 0.05)
        assert (known > found.threshold).float().mean().item() == pytest.approx(0.05, abs=0.002)
        assert found.probability(torch.tensor(1.5)).item() == pytest.approx(0.5, abs=0.03)
        # of two unit normals 3 apart the log odds are 3 (x - 1.5); the ridge makes them a little less steep
        assert found.slope == pytest.approx(3.0, rel=0.15)

    def test_probabilities_sum_to_one(self):
        found = probabilities(torch.randn(3, 4, generator=seeded()), 2.0, torch.tensor([0.0, 0.3, 1.0]))
        torch.testing.assert_close(found.sum(dim=1), torch.ones(3))
        torch.testing.assert_close(found[:, -1], torch.tensor([0.0, 0.3, 1.0]))


def told_by_their_mean(classes: int, size: int = 3, tasks: int = 6, steps: int = 12) -> Episodes:
    """Episodes of noise about an action of each class, which the observation does not show."""
    count = classes * tasks
    labels, numbers = torch.arange(count) // tasks, torch.arange(count)
    centres = torch.randn(classes, 2, generator=seeded(5))
    noise = torch.randn(steps, count, 2 * size + 2, generator=seeded(6))
    noise[..., -2:] = centres[labels] + 0.2 * noise[..., -2:]
    return Episodes(noise, torch.full((count,), steps), labels, numbers)


class TestFewShot:
    def test_support_and_queries_are_of_other_tasks(self):
        episodes = told_by_their_mean(5)
        for seed in range(10):
            drawn = draw(episodes, [0, 2, 4], 2, 4, seeded(seed), queries=3)
            assert drawn.support.shape == (2, 4) and drawn.queries.shape == drawn.answers.shape == (6,)
            assert not set(episodes.tasks[drawn.support].flatten().tolist()) & set(
                episodes.tasks[drawn.queries].tolist()
            )
            of_class = torch.tensor(drawn.classes)
            assert (episodes.classes[drawn.support] == of_class[:, None]).all()
            assert (episodes.classes[drawn.queries] == of_class[drawn.answers]).all()

    def test_a_class_on_one_task_is_refused(self):
        with pytest.raises(ValueError, match="class 0 has episodes on 1 task; a draw needs two"):
            draw(told_by_their_mean(2, tasks=1), [0, 1], 2, 1, seeded())

    @pytest.mark.thorough
    @pytest.mark.parametrize("name", HEADS)
    def test_trained_on_some_classes_it_tells_others(self, name: str):
        episodes = told_by_their_mean(24)
        settings = MetricSettings(
            head=name, hidden_sizes=(16,), embedding_size=8, updates=150, lr=5e-3, training_ways=8
        )
        metric = Metric(settings, 3, 2)
        metric.initialise(seeded())
        before = torch.random.get_rng_state()
        train(metric, episodes, range(16), [3, 12], seeded(1))
        assert torch.equal(torch.random.get_rng_state(), before)
        embedded = metric.embed(episodes, [12])[0]

        def accuracy(draw_seed: int) -> Tensor:
            drawn = draw(episodes, range(16, 24), 5, 3, seeded(draw_seed))
            scores = metric.head(embedded[drawn.queries], embedded[drawn.support])
            return (scores.argmax(dim=1) == drawn.answers).float().mean()

        with torch.no_grad():
            assert torch.stack([accuracy(seed) for seed in range(20)]).mean() > 0.85
