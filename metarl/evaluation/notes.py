"""Notes and warnings on the evaluation of one agent, which a reader needs to compare its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metarl.config import RESET_WORDS, EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.evaluation.outcomes import mean_of_sound
from metarl.evaluation.results import SHARES, EvaluationResult
from metarl.evaluation.statistics import (
    CONFIDENCE,
    REACHED,
    Array,
    Interval,
    Summary,
    interquartile_mean,
    task_interval,
)
from metarl.evaluation.time_course import EARLY
from metarl.runs.trial import stream
from metarl.wording import number_of

SLIGHT = 1e-3
"""Share of the return up to which a fall from one round of adaptation to the next is no reason to stop earlier."""


def remarked(result: EvaluationResult, family: TaskFamily, adapts: bool, agents: int = 1) -> EvaluationResult:
    """Return the result with the notes and warnings that its numbers ask for.

    family: whose tasks they are. adapts: whether the agent learns from a shot. agents: number of agents, trained alike
    with different seeds, that the numbers are the mean of.
    """
    warnings = result.train_gap.warnings if result.train_gap else []
    if result.settings.adaptations and adapts and result.settings.reset_memory == "never" and not family.changing:
        later = later_warnings(result.returns[None], result.summary, result.settings)
        warnings = gain_warnings(result.summary.gain[-1], result.settings.adaptations) + later + warnings
    notes = [numbers_note(result, agents), *_alike(result, family), *task_notes(result, family)]
    notes += _condition_notes(result, family, adapts) + time_notes(result)
    if result.shift:
        notes.append(result.shift.note)
    return replace(result, notes=[*notes, *_left_out_notes(result)], warnings=warnings)


def numbers_note(result: EvaluationResult, agents: int) -> str:
    """Return the note on the number of tasks and episodes and on the meaning of the numbers."""
    whose = (
        "of this one trained agent"
        if agents == 1
        else f"and over {agents} training seeds (Student's t), of the mean of the agents trained with them; "
        "probabilities and shares on which few training seeds agree are less certain than their intervals say"
    )
    tasks, episodes = result.summary.tasks_counted, result.settings.envs_per_task
    return (
        f"{number_of(tasks, 'task')}, {number_of(episodes, 'episode')} a task and round; "
        "IQM: mean of the middle half of the tasks; ±: standard deviation between tasks; [ ]: 95 % bootstrap "
        f"interval over tasks, stratified by seed, {whose}"
    )


def _alike(result: EvaluationResult, family: TaskFamily) -> list[str]:
    """Return the note that tasks are alike, if several were drawn of each: they differ in start and noise alone."""
    drawn = [tuple(values.items()) for of_seed in result.tasks for values in of_seed]
    distinct = len({*drawn})
    if family.changing or 2 * distinct > len(drawn):
        return []
    return [
        f"the {len(drawn)} tasks are {number_of(distinct, 'different task')}, each met several times: intervals over "
        "tasks cover starts and noise, and say nothing of other tasks"
    ]


def task_notes(result: EvaluationResult, family: TaskFamily) -> list[str]:
    """Return the notes on the tasks of a split, if they are other than held-out tasks that training never draws."""
    if result.settings.split == "ood" and family.named:
        return ["these are the family's named tasks in turn, which training never draws", by_name_note(result, family)]
    if result.settings.split == "ood":
        return ["these are tasks outside the range of training"]
    if not family.disjoint_splits:
        return [
            f"{family.name} has finitely many tasks here, and training meets all: those that are judged on are no "
            "others, with starts and noise of their own"
        ]
    if result.settings.split != "train":
        return []
    apart = ", other than the few that the agent was trained on" if result.train_gap else ""
    return [f"these are tasks of the training split{apart}"]


def by_name_note(result: EvaluationResult, family: TaskFamily) -> str:
    """Return the note with the mean return of each named task after the last round, and its shares of episodes."""
    names = np.array([[family.name_of(values) for values in drawn] for drawn in result.tasks])  # [seed, task]
    parts = []
    for name in family.named:
        own = names == name
        if not own.any():
            continue
        shares = [
            f"{share.replace('_', ' ')} {100 * float(mean_of_sound(result.measures[share][:, -1][own])):.0f} %"
            for share in SHARES
            if share in result.measures
        ]
        mean = float(mean_of_sound(result.returns[:, -1][own]))
        parts.append(f"{name} {mean:.4g}" + (f" ({', '.join(shares)})" if shares else ""))
    return f"mean return of each after the last round: {', '.join(parts)}"


def _condition_notes(result: EvaluationResult, family: TaskFamily, adapts: bool) -> list[str]:
    """Return the notes on conditions that differ from those of training, or that do not where they are to."""
    settings, notes = result.settings, []
    if result.also_split == settings.split:
        notes.append("an oracle that met tasks of this split in training (training.also_split)")
    if settings.reset_memory != "never":
        reset = RESET_WORDS[settings.reset_memory].removeprefix(", ")
        notes.append(f"{reset} (evaluation.reset_memory={settings.reset_memory}): the gain is not one of adaptation")
    if settings.explores_apart and adapts and settings.reset_memory == "never":
        notes.append(
            "adapted from episodes apart, played with the noise of exploration; those that are judged are played "
            "without it (evaluation.explore_to_adapt=true)"
        )
    steps = (settings.adaptations + 1) * family.horizon
    notes += [
        f"the first {what} of a task comes after {least} to {most} control steps, and a trial has {steps}: "
        f"{'all tasks are' if least >= steps else 'some tasks may be'} judged before it"
        for what, (least, most) in family.onsets.items()
        if most >= steps
    ]
    if settings.adaptations and family.changing:
        notes.append(
            "tasks change while they last, so a round may be played on another task than the one before: the gain is "
            "not one of adaptation alone, and says something beside that of an agent that does not adapt"
        )
    if settings.lives:
        notes.append(
            "after a fall the robot was placed anew and the episode went on (evaluation.lives=true): returns count all "
            "lives of an episode, falls the episodes with a fall"
            if family.can_fall
            else f"evaluation.lives=true has no effect: no episode of {family.name} ends by a fall"
        )
    if settings.observation_noise:
        notes.append(
            f"observed with noise: {settings.observation_noise:g} standard deviations of each element under random "
            "actions"
        )
    if settings.reward_scale != 1:
        notes.append(f"the agent was shown {settings.reward_scale:g} times the reward; the returns are the true ones")
    adapted = adapts and settings.reset_memory == "never"
    if result.source and adapted and settings.adaptations > result.trained_rounds:
        rounds = settings.adaptations
        notes.append(
            f"{number_of(rounds, 'round')} of adaptation {'are' if rounds > 1 else 'is'} more than the "
            f"{result.trained_rounds} that the agent was trained for"
        )
    return notes


def time_notes(result: EvaluationResult) -> list[str]:
    """Return the notes on time courses and on coming back to a task."""
    notes = []
    for course in result.courses:
        width = f"{course.ends_s[0]:.2g} s"
        if course.change:
            first = "; what memory adds is that from here on" if course.change == 1 else ""
            notes.append(
                f"after change {course.change}: {number_of(course.tasks, 'task')} whose episode goes on for "
                f"{course.ends_s[-1]:.3g} s, in which the return then is counted; the rise is that from the first "
                f"{100 * EARLY:g} % of this time to its last quarter{first}"
            )
            continue
        notes.append(
            f"reward per second: mean over tasks in bins of {width}, 0 once an episode is over; the rise is that from "
            f"the first {100 * EARLY:g} % of the first episode to the last quarter of the last one, and an agent has "
            f"adapted at the first bin that has {100 * REACHED:g} % of it, if the rest of the episode has too"
        )
        if not course.memory:
            why = "it rises because the robot starts from rest, so " if course.rise.low > 0 else ""
            notes.append(f"without memory, {why}no seconds are given")
        elif course.seconds is not None:
            if result.episodes_per_round > 1:
                notes.append(
                    f"seconds until adapted are those of one robot, which plays the {result.episodes_per_round} "
                    "episodes of a round one after another"
                )
            notes.append(
                "a part of the rise is that of a robot that starts from rest: RUN RUN:evaluation.reset-memory=step "
                "gives the seconds until what memory adds is there"
            )
    if result.forgetting:
        shots = number_of(len(result.forgetting.back), "round")
        notes.append(
            f"A is each of the tasks: {shots} on A, {shots} on B, which is another of the tasks, and {shots} on A "
            "again, with the memory kept and the agent not told; back on A: return of the first round back - return "
            "of the last one before"
        )
    return notes


def _left_out_notes(result: EvaluationResult) -> list[str]:
    """Return the notes on contacts, episodes and tasks that were left out."""
    notes = []
    if result.overflows:
        notes.append(
            f"in {number_of(result.overflows, 'simulation step')} of single robots the gpu simulator had no room for "
            "a contact and left it out"
        )
    if result.faults:
        notes.append(
            "left out because their simulation broke down, as MuJoCo warned or the environment raised an error: "
            f"{number_of(result.faults, 'episode')}; because a round had no sound episode: "
            f"{number_of(result.summary.tasks_left_out, 'task')}"
        )
    return notes


def later_warnings(returns: Array, summary: Summary, settings: EvaluationSettings) -> list[str]:
    """Return a warning if the return after the last round lies below that after an earlier one, on the same tasks.

    returns: of the agents trained alike, [run, seed, shot, task]. summary: of all of them.
    """
    rounds, iqm = returns.shape[2] - 1, summary.iqm
    best = max(range(1, rounds + 1), key=lambda k: iqm[k].estimate)
    if best == rounds:
        return []
    lost = task_interval(
        returns[:, :, best] - returns[:, :, -1],
        interquartile_mean,
        settings.bootstrap_samples,
        stream(settings.seeds[0], "evaluation/later"),
        confidence=1 - (1 - CONFIDENCE) / (rounds - 1),  # the best of several rounds is compared
    )
    if lost is None or lost.low <= SLIGHT * abs(iqm[best].estimate):
        return []
    still = not (settings.explore or settings.explore_to_adapt)
    remedy = ", or adapt from episodes with the noise of training (evaluation.explore_to_adapt=true)" if still else ""
    return [
        f"from round {best} to round {rounds} of adaptation the return falls by {lost.estimate:.4g} [{lost.low:.4g}, "
        f"{lost.high:.4g}]: more rounds make this agent worse. Stop after round {best}, or let later rounds change "
        f"less{remedy}"
    ]


def gain_warnings(gain: Interval, rounds: int) -> list[str]:
    """Return a warning if the interval of the gain after so many rounds does not lie above 0."""
    if gain.low > 0:
        return []
    found = (
        f"the gain after {number_of(rounds, 'round')} of adaptation is {gain.estimate:.4g} "
        f"[{gain.low:.4g}, {gain.high:.4g}]"
    )
    if gain.high < 0:
        return [
            f"{found}, below 0: adaptation makes this agent worse. Look at the return after each round: if it falls "
            "from the first on, train longer, or make the steps smaller of an agent that adapts by gradients"
        ]
    return [
        f"{found}, which includes 0: these tasks do not show that adaptation helps. Look at return/before and "
        "return/after in the learning curve: where the two still part, train longer; where they lie on each other, "
        "the agent makes no use of what it sees. More tasks or seeds narrow the interval"
    ]
