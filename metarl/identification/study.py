"""Collect episodes of every class, train a metric on some classes, calibrate it on others, and judge it on the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from metarl.agents.metric.few_shot import Episodes, Metric, train
from metarl.agents.metric.settings import MetricSettings
from metarl.agents.threads import single_torch_thread
from metarl.config import RunConfig
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import UsageError
from metarl.evaluation.statistics import Interval
from metarl.identification.answers import COUNTS, Problem, averaged, calibrate, up_to
from metarl.identification.classes import TaskClass, Uses, classes_of, draw_tasks, uses_of
from metarl.identification.collect import class_streams, marks_of, play
from metarl.identification.identifier import Identifier, Policy
from metarl.identification.judge import all_but_one, confusion, judge, shown_of
from metarl.identification.result import Identification
from metarl.identification.retrieval import retrieval
from metarl.identification.settings import IdentifySettings
from metarl.provenance import provenance
from metarl.runs.beliefs import digest_of
from metarl.runs.run import Run
from metarl.runs.trial import stream, torch_stream

Say = Callable[[str], None]
FEW, FEW_KNOWN = 6, 4
"""Numbers of classes of training, and of calibration, below which a note warns."""
REPORTS = 5
"""Lines on the progress of training."""
KEPT = 16
"""Supporting episodes of each class that an identifier is saved with."""


@dataclass(frozen=True)
class Plan:
    """What is to be told apart: checked before anything is played."""

    family: TaskFamily
    classes: list[TaskClass]
    uses: Uses
    marks: list[int]
    """Durations of queries in control steps."""

    def labels(self, use: str) -> list[str]:
        """Return the labels of the classes of a use."""
        return [self.classes[i].label for i in getattr(self.uses, use)]


def plan(run: Run, family: TaskFamily, settings: IdentifySettings) -> Plan:
    """Return the plan of an identification; UsageError for what cannot be done.

    family: of the run's robot; its tasks are played by the run's policy.
    """
    if not settings.by:
        names = ", ".join(p.name for p in family.parameters if not p.nuisance)
        raise UsageError(f"metarl identify needs --by PARAMETER, what is to be told apart; {family.name} has {names}")
    if run.config.training.reveal_task:
        raise UsageError(f"{run.directory} is an oracle, which is told the task: there is nothing to identify")
    sizes = (family.observation_names, family.action_size)
    if sizes != (run.family.observation_names, run.family.action_size):
        raise UsageError(
            f"the policy of {run.directory} was not trained with the observations and actions of {family.name}"
        )
    if settings.shots > (distinct := settings.tasks // 2 * settings.episodes):
        raise UsageError(
            f"--shots is {settings.shots}, but half of the {settings.tasks} tasks of a class support, which makes "
            f"{distinct} episodes; raise --tasks or --episodes, or give fewer"
        )
    classes = classes_of(family, settings.by, settings.bins)
    uses = uses_of(classes, settings.hold_out, stream(settings.seed, "identification/classes"))
    return Plan(family, classes, uses, marks_of(family, settings.seconds))


def identify(
    run: Run,
    planned: Plan,
    settings: IdentifySettings,
    metric_settings: MetricSettings,
    threads: int = 0,
    config: RunConfig | None = None,
    say: Say = lambda line: None,
) -> tuple[Identification, Identifier]:
    """Return how well classes are told apart that no training met, and the identifier that does it.

    threads: of the simulation; 0 takes all cores. config: with the settings of the family, for the provenance. say:
    called with lines on the progress.
    """
    family, uses, marks = planned.family, planned.uses, planned.marks
    rngs = class_streams(settings.seed, len(planned.classes))
    tasks = [draw_tasks(family, own, settings.tasks, rng) for own, rng in zip(planned.classes, rngs, strict=True)]
    rewarded = metric_settings.reward_input
    episodes = play(
        *(run.agent, family, tasks, settings.episodes, marks[-1], rewarded, settings.seed, threads),
        *(settings.explore, say),
    )
    with single_torch_thread():
        metric = _trained(planned, episodes, settings, metric_settings, say)
        counts = up_to(settings.episodes, COUNTS)
        embeddings = averaged(episodes, metric.embed(episodes, marks), counts)
        generator = torch_stream(settings.seed, "identification/judgement")
        problem = Problem(metric, episodes, counts, embeddings, settings, generator)
        say("calibrating and judging")
        calibration = calibrate(problem, uses.calibration, uses.training, marks)
        shown, rng = shown_of(calibration, family.dt), stream(settings.seed, "identification/bootstrap")
        at, ways = family.dt * marks[shown], min(settings.ways, all_but_one(uses))
        unknown = calibration.at(marks[shown], len(uses.judged), 1)[1]
        found = Identification(
            family=family.name,
            run=run.directory.resolve().name,
            by=list(settings.by),
            classes={use: planned.labels(use) for use in ("training", "calibration", "judged")},
            ways=ways,
            all_ways=all_but_one(uses),
            shots=settings.shots,
            tasks=len(uses.judged) * settings.tasks,
            **judge(problem, uses, ways, calibration, family.dt, rng)._asdict(),
            confusion=confusion(problem, uses.judged, planned.labels("judged"), unknown, shown, at),
            retrieved=_retrieved(run, planned, problem, tasks, threads),
            notes=_notes(planned),
            settings={"identify": dataclasses.asdict(settings), "metric": dataclasses.asdict(metric_settings)},
            provenance=provenance(config or run.config),
        )
    policy = Policy(
        *(family.name, family.observation_names, family.action_size, family.dt),
        *(found.run, run.iteration, digest_of(run.agent), settings.explore),
    )
    return found, Identifier(metric, policy, calibration, _known(planned, problem))


def _retrieved(
    run: Run, planned: Plan, problem: Problem, tasks: Sequence[Sequence[Task]], threads: int
) -> dict[str, Interval]:
    """Return the returns of `retrieval`, with one known task of each class of training; none if nothing adapts."""
    settings, uses = problem.settings, planned.uses
    if not run.agent.facts.adapts:
        return {}
    own = [(problem.episodes.classes == number).nonzero().squeeze(-1)[: settings.shots] for number in uses.training]
    fewest = min(map(len, own))
    support = torch.stack([problem.embeddings[0, -1][places[:fewest]] for places in own])
    known, judged = [tasks[number][0] for number in uses.training], [tasks[number] for number in uses.judged]
    rng = stream(settings.seed, "identification/retrieval")
    parts = (problem.metric, support, known, judged, planned.marks[-1], settings.explore, settings.seed, threads)
    return retrieval(run.agent, planned.family, *parts, settings.bootstrap_samples, rng)


def _trained(
    planned: Plan, episodes: Episodes, settings: IdentifySettings, metric_settings: MetricSettings, say: Say
) -> Metric:
    metric = Metric(metric_settings, planned.family.observation_size, planned.family.action_size)
    metric.initialise(torch_stream(settings.seed, "identification/initialisation"))
    generator = torch_stream(settings.seed, "identification/training")
    every = max(1, metric_settings.updates // REPORTS)
    recent: list[float] = []

    def progress(update: int, accuracy: float) -> None:
        recent.append(accuracy)
        if update % every == 0:
            share = sum(recent) / len(recent)
            say(f"update {update} of {metric_settings.updates}: accuracy on training classes {share:.0%}")
            recent.clear()

    train(metric, episodes, planned.uses.training, planned.marks, generator, progress)
    return metric


def _known(planned: Plan, problem: Problem) -> dict[str, torch.Tensor]:
    """Return embeddings of some episodes of each class by its label, of as many tasks as there are."""
    whole, found = problem.embeddings[0, -1], {}
    for number, own in enumerate(planned.classes):
        places = (problem.episodes.classes == number).nonzero().squeeze(-1)
        chosen = torch.linspace(0, len(places) - 1, min(KEPT, len(places))).round().long()
        found[own.label] = whole[places[chosen]].clone()
    return found


def _notes(planned: Plan) -> list[str]:
    trained, calibrated, notes = len(planned.uses.training), len(planned.uses.calibration), []
    if trained < FEW:
        notes.append(
            f"the encoder learned from {trained} classes alone; with more, new ones are told better: name a second "
            "parameter, or more bins"
        )
    if calibrated < FEW_KNOWN:
        notes.append(
            f"probabilities and none of these rest on {calibrated} classes of calibration alone; check them by the "
            "calibration error and the false alarms"
        )
    return notes
