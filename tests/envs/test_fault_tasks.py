"""Tasks with faults: how they are drawn, when the faults begin and end, and who sees them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.faults.kinds import KINDS
from metarl.envs.faults.settings import FaultKind
from metarl.envs.faults.with_faults import FAULTY
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal, told
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahMassSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.task import Task

SPLITS = ("train", "held_out")


def cheetah(*faults: FaultKind, **rest) -> TaskFamily:
    return make_family(HalfCheetahDirectionSettings(faults=faults, **rest))


def drawn(family: TaskFamily, count: int = 60, split: str = "train", seed: int = 0) -> list[Task]:
    return family.sample(count, np.random.default_rng(seed), split)  # pyright: ignore[reportArgumentType]


def in_words(family: TaskFamily, task: Task) -> tuple[str, str]:
    """Kind and place of a task's first fault."""
    by_name = {p.name: p for p in family.parameters}
    stage = next((s for s in family.stages(task) if s.values["fault_kind"]), family.stages(task)[0])
    return by_name["fault_kind"].words(stage.values["fault_kind"]), by_name["fault_place"].words(
        stage.values["fault_place"]
    )


def test_a_family_without_faults_is_as_it_was():
    for settings in (HalfCheetahMassSettings(), QuadrupedSettings()):
        family = make_family(settings)
        assert family.faults is None and not family.changing
        assert not [p.name for p in family.parameters if p.name.startswith("fault")]


def test_faults_take_nothing_from_the_draws_of_the_first_task():
    plain, faulty = make_family(HalfCheetahMassSettings()), make_family(HalfCheetahMassSettings(faults=("dead",)))
    assert drawn(plain, 1)[0].values["mass_scale"] == drawn(faulty, 1)[0].values["mass_scale"]


def test_a_task_has_one_of_the_kinds_in_one_of_the_places():
    family = cheetah("dead", "weak", "encoder_offset", fault_places=("b.*", "ffoot"), fault_severity=(0.2, 0.6))
    tasks = drawn(family)
    seen = {in_words(family, task) for task in tasks}
    kinds, places = ("dead", "weak", "encoder offset"), ("bthigh", "bshin", "bfoot", "ffoot")
    assert seen == {(kind, place) for kind in kinds for place in places}
    assert all(0.2 <= task.values["fault_severity"] < 0.6 and not task.changes for task in tasks)


@pytest.mark.parametrize("kind", ["dead", "locked", "sensor_lost", "weak", "encoder_offset"])
def test_a_severity_is_said_where_it_has_an_effect(kind):
    family = cheetah(kind)
    task = next(task for task in drawn(family) if task.values["fault_kind"])
    assert ("(" in family.faults.said(task.values)[0]) == ("severity has no effect" not in KINDS[kind].words)


def test_what_fails_is_said_and_is_coloured_in_a_picture():
    family = cheetah("dead", "encoder_offset", fault_places=("bshin", "ffoot"), fault_severity=(0.5, 0.5))
    for kind, place, said, coloured in (
        (0.0, 1.0, "no fault", set()),
        (1.0, 0.0, "no fault", set()),
        (1.0, 1.0, "bshin dead", {"bshin"}),
        (2.0, 2.0, "ffoot encoder offset (0.5)", {"ffoot"}),
    ):
        task = family.task({"fault_kind": kind, "fault_place": place, "fault_severity": 0.5})
        model = family.picture(task).compile()
        by_fault = np.abs(model.geom_rgba - np.array(FAULTY)).max(axis=1) < 1e-6
        assert {model.body(model.geom_bodyid[i]).name for i in np.flatnonzero(by_fault)} == coloured
        assert family.faults.said(task.values)[0] == said
        plain = family.compile(task)
        assert not (np.abs(plain.geom_rgba - np.array(FAULTY)).max(axis=1) < 1e-6).any()


def test_same_seed_same_faults_and_a_task_is_read_from_its_json():
    family = cheetah("dead", "delay", fault_onset=(3, 9), fault_duration=(2, 5), fault_repeats=2, fault_share=0.7)
    tasks = drawn(family)
    assert tasks == drawn(family) != drawn(family, seed=1)
    for task in tasks:
        assert Task.from_json(task.to_json()) == task == family.own(task)


def test_a_share_of_the_tasks_is_sound():
    family = cheetah("dead", "locked", fault_share=0.25, fault_onset=(5, 9))
    tasks = drawn(family, 400)
    sound = [task for task in tasks if not task.changes]
    assert 0.65 < len(sound) / len(tasks) < 0.85
    shown = [family.shown(task) for task in tasks]
    assert all((values["fault_kind"] == 0) == (task in sound) for task, values in zip(tasks, shown, strict=True))
    assert shown[-1] == family.stages(tasks[-1])[-1].values
    assert all(task.values["fault_kind"] == task.values["fault_place"] == 0 for task in tasks)


def test_onset_duration_and_repeats_are_within_their_ranges():
    family = cheetah("weak", fault_onset=(10, 20), fault_duration=(3, 6), fault_repeats=2)
    assert family.changing
    onsets, lengths, severities = set(), set(), set()
    for task in drawn(family):
        steps = [change.step for change in task.changes]
        kinds = [change.values["fault_kind"] for change in task.changes]
        assert kinds == [1, 0] * 3 and task.values["fault_kind"] == 0
        onsets.add(steps[0])
        lengths |= set(np.diff(steps))
        severities |= {change.values["fault_severity"] for change in task.changes[::2]}
    assert onsets == set(range(10, 21)) and lengths == {3, 4, 5, 6}
    assert len(severities) == 3 * 60  # each return has a severity of its own


def test_a_pause_is_within_its_own_range():
    family = cheetah("weak", fault_duration=(3, 6), fault_repeats=2, fault_pause=(20, 22))
    lengths = [np.diff([0, *(change.step for change in task.changes)]) for task in drawn(family)]
    assert {*np.ravel([own[0::2] for own in lengths])} == {3, 4, 5, 6}
    assert {*np.ravel([own[1::2] for own in lengths])} == {20, 21, 22}


def test_a_delay_jumps_where_there_is_no_pause():
    family = cheetah("delay", fault_onset=(4, 4), fault_duration=(3, 3), fault_repeats=2, fault_pause=(0, 0))
    tasks = drawn(family)
    for task in tasks:
        assert [change.step for change in task.changes] == [4, 7, 10, 13]
        assert [change.values["fault_kind"] for change in task.changes] == [1, 1, 1, 0]
    assert len({change.values["fault_severity"] for task in tasks for change in task.changes[:3]}) == 3 * len(tasks)
    env = BatchedEnv(family, 1, 1, threads=1)
    env.set_tasks(tasks[:1])
    env.reset([np.random.default_rng(0)])
    delays = []
    for _ in range(15):
        env.step(np.zeros((1, 1, 6)))
        delays.append(env.simulation.batch.get_model(0).actuator_delay.max())
    severities = [change.values["fault_severity"] for change in tasks[0].changes[:3]]
    assert delays == pytest.approx([0.0] * 4 + [0.06 * s for s in severities for _ in range(3)] + [0.0] * 2, abs=1e-6)


def test_a_fault_begins_and_ends_at_its_steps_across_episodes():
    family = cheetah("dead", fault_onset=(7, 7), fault_duration=(6, 6), fault_repeats=1, horizon=10)
    env = BatchedEnv(family, 1, 1, threads=1)
    env.set_tasks(drawn(family, 1))
    current = []
    for _ in range(3):
        env.reset([np.random.default_rng(0)])
        for _ in range(10):
            env.step(np.zeros((1, 1, 6)))
            gears = [a[0] for a in env.simulation.batch.get_model(0).actuator_gear]
            assert (env._state.task["fault_kind"][0] == 1) == (0.0 in gears)
            current.append(int(env._state.task["fault_kind"][0]))
    assert current == [0] * 7 + [1] * 6 + [0] * 6 + [1] * 6 + [0] * 5


def test_faults_go_with_a_familys_own_changes():
    settings = HalfCheetahMassSettings(faults=("dead",), fault_onset=(50, 50), changes=2, change_gap=(30, 30))
    task = drawn(make_family(settings), 1)[0]
    assert [(change.step, sorted(change.values)) for change in task.changes] == [
        (30, ["mass_scale"]),
        (50, ["fault_kind", "fault_place", "fault_severity"]),
        (60, ["mass_scale"]),
    ]


@pytest.mark.parametrize(
    ("held_out", "apart"),
    [(("RL",), {"RL hip", "RL thigh", "RL calf"}), (("FR_calf", "FL_c.*"), {"FR calf", "FL calf"})],
)
def test_training_never_draws_a_held_out_place(held_out: tuple[str, ...], apart: set[str]):
    family = make_family(QuadrupedSettings(faults=("dead", "stuck"), fault_held_out=held_out))
    train, other = ({in_words(family, task)[1] for task in drawn(family, 200, split)} for split in SPLITS)
    assert other == apart and not train & apart and len(train) == 12 - len(apart)


def test_a_leg_fails_as_one_place_and_another_is_held_out():
    family = make_family(
        QuadrupedSettings(faults=("dead",), fault_places=("FR", "FL", "RR", "RL"), fault_held_out=("RL",))
    )
    assert {in_words(family, task)[1] for task in drawn(family)} == {"FR", "FL", "RR"}
    assert {in_words(family, task)[1] for task in drawn(family, split="held_out")} == {"RL"}


EVERYWHERE = [(".*",), ("b.*", "f.*"), ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")]
"""Ways to hold out every place of HalfCheetah."""


def only_held_out(**rest) -> TaskFamily:
    """HalfCheetah of unknown mass, of which a joint is dead in held-out tasks only."""
    given = {"fault_held_out": (".*",), "fault_onset": (200, 200)} | rest
    return make_family(HalfCheetahMassSettings(faults=("dead",), **given))


def of_one_generator_each(family: TaskFamily, split: str) -> list[Task]:
    return [task for seed in range(60) for task in drawn(family, 1, split, seed)]


@pytest.mark.parametrize("held_out", EVERYWHERE)
def test_if_every_place_is_held_out_training_tasks_are_those_of_the_family_without_faults(held_out: tuple[str, ...]):
    plain, family = make_family(HalfCheetahMassSettings()), only_held_out(fault_held_out=held_out)
    sound = {"fault_kind": 0.0, "fault_place": 0.0, "fault_severity": 0.5}
    assert family.disjoint_splits and family.changing
    for own, task in zip(of_one_generator_each(plain, "train"), of_one_generator_each(family, "train"), strict=True):
        assert task.values == {**own.values, **sound} and not task.changes
        assert family.own(task) == task == Task.from_json(task.to_json())
    model, same = family.compile(drawn(family, 1)[0]), plain.compile(drawn(plain, 1)[0])
    for name in ("actuator_gear", "actuator_gainprm", "actuator_forcerange", "body_mass", "dof_damping"):
        np.testing.assert_array_equal(getattr(model, name), getattr(same, name))


@pytest.mark.parametrize("held_out", EVERYWHERE)
@pytest.mark.parametrize("split", ["held_out", "ood"])
def test_if_every_place_is_held_out_all_other_tasks_have_the_fault_from_its_onset(
    held_out: tuple[str, ...], split: str
):
    plain, family = make_family(HalfCheetahMassSettings()), only_held_out(fault_held_out=held_out)
    places = set()
    for own, task in zip(of_one_generator_each(plain, split), of_one_generator_each(family, split), strict=True):
        assert task.values["mass_scale"] == own.values["mass_scale"]
        assert task.values["fault_kind"] == task.values["fault_place"] == 0
        (change,) = task.changes
        assert change.step == 200 and change.values["fault_kind"] == 1
        places.add(change.values["fault_place"])
        gears = family.compile(family.stages(task)[1]).actuator_gear[:, 0]
        assert np.flatnonzero(gears == 0).tolist() == [change.values["fault_place"] - 1]
    assert places == {1, 2, 3, 4, 5, 6}


def test_tasks_that_differ_in_a_severity_without_effect_are_the_same():
    """A direction and a dead motor: twelve tasks, which training and held-out tasks are drawn from alike."""
    settings = {"faults": ("dead",), "fault_severity": (0.2, 0.9)}
    assert not make_family(HalfCheetahDirectionSettings(**settings)).disjoint_splits
    assert make_family(HalfCheetahDirectionSettings(**settings | {"faults": ("dead", "weak")})).disjoint_splits
    assert make_family(HalfCheetahDirectionSettings(**settings, fault_held_out=("bshin",))).disjoint_splits


def test_a_share_of_the_held_out_tasks_alone_may_have_the_fault():
    family = only_held_out(fault_share=0.25, fault_onset=(0, 0))
    assert not any(task.values["fault_kind"] for task in drawn(family, 200))
    faulty = [task for task in drawn(family, 400, "held_out") if task.values["fault_kind"]]
    assert 60 < len(faulty) < 140 and all(task.values["fault_place"] for task in faulty)
    assert family.disjoint_splits


def test_a_kind_whose_places_are_all_held_out_happens_in_held_out_tasks_only():
    family = cheetah("dead", "sensor_lost", fault_places=("bshin", "root_z"), fault_held_out=("bshin",))
    assert {in_words(family, task) for task in drawn(family)} == {("sensor lost", "root z")}
    assert {in_words(family, task) for task in drawn(family, split="held_out")} == {
        ("dead", "bshin"),
        ("sensor lost", "bshin"),
    }


def test_beside_faults_of_actuators_a_held_out_sensor_fails_in_no_training_task_by_another_name():
    places = ("bshin", "ffoot", "velocities")
    family = cheetah("dead", "sensor_lost", fault_places=places, fault_held_out=("bshin",))
    assert {in_words(family, task) for task in drawn(family)} == {("dead", "ffoot"), ("sensor lost", "ffoot")}
    assert {in_words(family, task) for task in drawn(family, split="held_out")} == {
        ("dead", "bshin"),
        ("sensor lost", "bshin"),
        ("sensor lost", "velocities"),
    }
    assert family.disjoint_splits


def test_an_oracle_that_met_them_is_told_of_faults_that_training_lacks_and_no_other_is():
    family = only_held_out(fault_onset=(3, 3), horizon=6)
    met, other = reveal(family, splits=SPLITS), reveal(family)
    names = [name.removeprefix("task_fault_").removesuffix(" [1]") for name in met.observation_names[-10:]]
    places = ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    assert names == ["kind=none", "kind=dead", "place=nowhere", *(f"place={place}" for place in places), "severity"]
    assert met.observation_names == other.observation_names
    (trained,), (judged,) = drawn(family, 1), drawn(family, 1, "held_out")
    place = places.index(in_words(family, judged)[1])
    severity = 4 * judged.changes[0].values["fault_severity"] - 3  # 0.5 to 1 mapped to -1 to 1
    sound, faulty = [1, 0, 1, *[0] * 6, -1], [0, 1, 0, *np.eye(6)[place], severity]
    unknown = [*[0] * 9, severity]
    for family_told, task, later in ((met, trained, sound), (met, judged, faulty), (other, judged, unknown)):
        env = BatchedEnv(family_told, 1, 1, threads=1)
        env.set_tasks([task])
        rows = [env.reset([np.random.default_rng(0)])]
        rows += [env.step(np.zeros((1, 1, 6))).observations for _ in range(6)]
        for step, row in enumerate(rows):
            np.testing.assert_allclose(row[0, 0, -10:], sound if step <= 3 else later, atol=1e-6)


def test_an_oracle_is_told_kind_and_place_one_hot_and_the_severity_as_they_are_now():
    family = cheetah(
        "dead", "weak", fault_places=("bshin", "ffoot"), fault_severity=(0.5, 0.9), fault_share=0.9, fault_onset=(3, 3),
        fault_duration=(4, 4), horizon=12,
    )  # fmt: skip
    names = [name.removeprefix("task_fault_") for name in reveal(family).observation_names[-6:]]
    assert names == [
        "kind=none [1]",
        "kind=dead [1]",
        "kind=weak [1]",
        "place=bshin [1]",
        "place=ffoot [1]",
        "severity [1]",
    ]
    task = next(task for task in drawn(family) if in_words(family, task) == ("weak", "ffoot"))
    env = BatchedEnv(reveal(family), 1, 1, threads=1)
    env.set_tasks([task])
    rows = [env.reset([np.random.default_rng(0)])]
    rows += [env.step(np.zeros((1, 1, 6))).observations for _ in range(12)]
    severity = (task.changes[0].values["fault_severity"] - 0.5) / 0.4 * 2 - 1
    for step, row in enumerate(rows):
        broken = 4 <= step <= 7  # what a step tells is what was true during it
        expected = [0, 0, 1, 0, 1, severity] if broken else [1, 0, 0, 0, 0, -1]
        np.testing.assert_allclose(row[0, 0, -6:], expected, atol=1e-6)
    assert np.abs(told(family, drawn(family))).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"faults": ("dead",), "fault_places": ("bshim",)}, "fault_places has 'bshim', .* did you mean 'bshin'"),
        ({"faults": ("dead",), "fault_held_out": ("hind",)}, "fault_held_out has 'hind', which is no joint"),
        ({"faults": ("dead",), "fault_held_out": ("rootx",)}, "fault_held_out rootx is among none of the places"),
        (
            {
                "faults": ("dead", "sensor_lost"),
                "fault_places": ("bshin", "velocities"),
                "fault_held_out": ("velocities",),
            },
            "fault_held_out velocities has no place where 'dead' can happen, .* hold out one of bshin too",
        ),
        (
            {
                "faults": ("dead", "sensor_lost"),
                "fault_places": ("bshin", "ffoot", "velocities"),
                "fault_held_out": ("velocities", "ffoot"),
            },
            "bshin shares sensors with fault_held_out velocities, ffoot, so only .*; hold out bshin too",
        ),
        ({"faults": ("dead",), "fault_places": ("rootx",)}, "'rootx', which can have no fault of these: .*no actuator"),
        ({"faults": ("dead", "dead")}, "faults has 'dead' more than once"),
        ({"faults": ("dead",), "fault_repeats": 1}, "fault_repeats is 1, but the fault lasts for good"),
        ({"faults": ("dead",), "fault_pause": (3,)}, r"fault_pause is \[3\]; it must be two numbers"),
        ({"faults": ("dead",), "fault_pause": (0, 0)}, r"fault_pause is \[0, 0\], but .* give fault_repeats"),
        ({"faults": ("dead",), "fault_duration": (0, 5)}, r"fault_duration is \[0, 5\]; give at least 1 step"),
        ({"faults": ("dead",), "fault_severity": (0.5, 1.5)}, r"family.fault_severity\[1\] is 1.5; .* at most 1"),
        (
            {"faults": ("encoder_scale", "weak"), "fault_severity": (-0.5, 1.0)},
            "fault_severity begins at -0.5, and the severity of 'weak' is from 0 to 1; .* of encoder_offset",
        ),
        ({"faults": ("encoder_scale",), "fault_severity": (-1.5, 1.0)}, r"fault_severity\[0\] is -1.5; .* at least -1"),
        (
            {"faults": ("dead",), "fault_places": ("velocities_x",)},
            "fault_places has 'velocities_x', which is no joint",
        ),
        ({"faults": ("dead",), "fault_share": 0.0}, "family.fault_share is 0; it must be greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_family(HalfCheetahDirectionSettings(**settings))


def test_an_encoder_that_nobody_reads_cannot_fail():
    from metarl.envs.faults.with_faults import with_faults

    plain = cheetah()
    blind = dataclasses.replace(plain, observation={"velocities": plain.observation["velocities"]})
    message = "'encoder_offset', .* does not have its position; what can fail: dead, .*locked, sensor_lost, delay"
    with pytest.raises(ValueError, match=message):
        with_faults(blind, HalfCheetahDirectionSettings(faults=("encoder_offset",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fault_kind": 3.0}, "fault_kind is 3; it must be one of 0 none, 1 dead, 2 sensor_lost"),
        ({"fault_place": 1.5}, "fault_place is 1.5; it must be one of 0 nowhere, 1 bthigh"),
        ({"fault_severity": 1.2}, "fault_severity is 1.2; it must be from 0 to 1"),
        ({"fault_kind": 1.0, "fault_place": 2.0}, "velocities cannot have the fault dead: it has no actuator"),
    ],
)
def test_values_that_name_no_fault_are_refused(values: dict[str, float], message: str):
    family = cheetah("dead", "sensor_lost", fault_places=("bthigh", "velocities"))
    with pytest.raises(ValueError, match=message):
        family.task(values)


def test_the_faults_are_described_in_words():
    family = make_family(
        QuadrupedSettings(
            faults=("weak", "encoder_drift"),
            fault_places=("FR", "RL_calf"),
            fault_held_out=("RL_calf",),
            fault_share=0.8,
            fault_onset=(50, 90),
            fault_duration=(20, 20),
            fault_repeats=2,
        )
    )
    assert family.faults is not None
    first, weak, drift = family.faults.words
    assert (
        first == "80% of tasks have one fault; it begins after 50 to 90 control steps, lasts 20, and comes back 2 times"
    )
    assert weak.startswith(
        "weak: actuator's force and its limit x (1 - severity): 0 as strong as ever, 1 without force"
    )
    assert weak.endswith("; at FR; held out: RL_calf") and "severity x 0.05 rad/s" in drift


@pytest.mark.parametrize(
    ("pause", "words"), [((0, 0), "at once"), ((9, 9), "after 9 more"), ((0, 9), "after 0 to 9 more")]
)
def test_the_pause_between_faults_is_told_in_words(pause: tuple[int, int], words: str):
    family = cheetah("delay", fault_duration=(5, 5), fault_repeats=3, fault_pause=pause)
    assert family.faults is not None and family.faults.words[0].endswith(f"lasts 5, and comes back 3 times, {words}")


def test_faults_of_held_out_tasks_alone_are_described_in_words():
    family = only_held_out()
    assert family.faults is not None
    first, dead = family.faults.words
    assert first.startswith("100% of held-out tasks, and no training task, have one fault; it begins after 200 ")
    assert dead.endswith("no effect; held out: bthigh, bshin, bfoot, fthigh, fshin, ffoot")
