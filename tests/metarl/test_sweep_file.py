"""The file of a sweep: what it refuses, what a factor sets, which tasks variants are judged on."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from metarl.cli import app as cli
from metarl.config import config_to_dict
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.parameters import Choice, LogUniform, Uniform
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.errors import UsageError
from metarl.sweeps.file import load_sweep
from metarl.sweeps.study import Study
from metarl.sweeps.task_axes import cells, centre, distances, edges
from metarl.sweeps.yardstick import hull, widened, yardstick

MISTAKES = {
    "facters: {}": "unknown key 'facters'; did you mean 'factors'?",
    "{}": "nothing varies; add `factors:`",
    "factors: {}": "nothing varies; `factors:` is empty",
    "factors: {agent.iner_lr: [1, 2]}": "unknown factor 'agent.iner_lr'; did you mean 'agent.inner_lr'?",
    "factors: {family.velocty: {width: [1]}}": "unknown factor 'family.velocty'; did you mean 'family.velocity'?",
    **{
        f"factors: {{{name}: [maml, rl2]}}": (
            f"factors: {name} cannot be swept, as a sweep has one agent and one family; write a sweep for each and "
            "compare their best runs with metarl evaluate"
        )
        for name in ("agent", "family", "agent.name", "family.name")
    },
    "factors: {evaluation.tasks: [1, 2]}": "evaluation.tasks cannot be swept; agent, family, training, evaluation.adap",
    "factors: {training.threads: [1, 2]}": "training.threads cannot be swept, as it changes no number and all variants",
    "factors: {agent.inner_lr: []}": "agent.inner_lr has no levels; list at least one",
    "factors: {agent.inner_lr: 0.1}": "agent.inner_lr is 0.1; list its levels, or give low and high",
    "factors: {agent.inner_lr: [fast]}": "agent.inner_lr[0] is 'fast', text; it must be a finite number",
    "factors: {agent.inner_lr: [1, 1.0]}": "agent.inner_lr has the level 1.0 twice",
    "factors: {agent.inner_lr: {low: 2, high: 1}}": "agent.inner_lr has the empty range [2, 1]; give low < high",
    "factors: {agent.inner_lr: {low: 2, hihg: 1}}": "'factors: agent.inner_lr.hihg'; did you mean 'high'?",
    "factors: {agent.inner_lr: {low: 2}}": "agent.inner_lr has no high; give low and high",
    "factors: {agent.inner_lr: {low: 0, high: 1, log: true}}": "low is 0; a range in the logarithm must be greater",
    "factors: {agent.inner_lr: {low: 1, high: 2}}": "agent.inner_lr is a range, and a grid needs levels: add `levels:",
    "factors: {agent.inner_lr: {low: 1, high: 2, levels: 10001}}": "has 10001 levels; it must have at most 10000",
    "factors: {family.velocity: {center: {low: 1, high: 2, levels: 101}, width: {low: 1, high: 2, levels: 101}}}": (
        "family.velocity has 10201 levels; it must have at most 10000"
    ),
    f"factors: {{agent.inner_lr: {list(range(1, 10002))}}}": "inner_lr has 10001 levels; it must have at most 10000",
    "factors: {agent.outer: {low: 1, high: 2}}": "agent.outer is not a number, so it has no low and high; list",
    "factors: {family.velocity: {width: [0]}}": "family.velocity has the empty width 0; it must be greater than 0",
    "factors: {family.velocity: {wdith: [1]}}": "unknown key 'factors: family.velocity.wdith'; did you mean 'width'?",
    "factors: {family.velocity: [[2, 1]]}": "family.velocity has the empty range [2, 1]; give low < high",
    "factors: {family.velocity: {width: [1]}, family.velocity_low: [1]}": "both set family.velocity_low; leave one",
    "{factors: {agent.inner_lr: [1]}, method: gird}": "unknown method 'gird'; did you mean 'grid'?",
    "{factors: {agent.inner_lr: [1]}, method: tpe}": "method tpe never ends by itself; add `trials: N` to the file",
    "{factors: {agent.inner_lr: [1]}, trials: 0}": "trials is 0; it must be at least 1",
    "{factors: {agent.inner_lr: [1]}, pruner: {name: medain}}": "pruner.name is 'medain'; did you mean 'median'?",
    "{factors: {agent.inner_lr: [1]}, pruner: {every: -1}}": "pruner.every is -1; it must be at least 0",
    "{factors: {family.velocity: {width: [1]}}, pruner: {name: median, by: training}}": "family.velocity_low varies",
    "{factors: {training.distinct_tasks: [3, 0]}, pruner: {name: median, by: training}}": "distinct_tasks varies",
    "{factors: {training.mirror: [true, false]}, pruner: {name: median, by: training}}": "training.mirror varies the",
    "{factors: {agent.inner_lr: [1]}, objective: {measure: retrun}}": "objective.measure is 'retrun'; did you mean",
    "{factors: {agent.inner_lr: [1]}, objective: {ranges: {x: [2, 1]}}}": "ranges.x is the empty range [2, 1]",
    "{factors: {agent.inner_lr: [1]}, objective: {tasks: ood, ranges: {x: [1, 2]}}}": "but objective.tasks is ood",
    "{factors: {agent.inner_lr: [1]}, base: {familly: x}}": "unknown key 'base.familly'; did you mean 'family'?",
    "{factors: {agent.inner_lr: [1]}, base: {training.iters: 3}}": "unknown setting 'base: training.iters'; did you",
    "{factors: {agent.inner_lr: [1]}, base: {training.tasks: 0}}": "training.tasks is 0; it must be at least 1",
    "{factors: {agent.inner_lr: [1]}, base: {config: x.yaml}}": "x.yaml; give a YAML file",
    "{factors: {agent.inner_lr: [1]}, report: {grid: 1}}": "report.grid is 1; it must be at least 2",
    "{factors: {agent.inner_lr: [1]}, report: {grid: 201}}": "report.grid is 201; it must be at most 200",
    "[": "is not valid YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_file_is_one_line(text, sweep_file, capsys):
    assert cli.main(["sweep", str(sweep_file(text))]) == 2
    output, message = capsys.readouterr()
    assert MISTAKES[text] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert output == ""


def test_help(capsys):
    assert cli.main(["sweep", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: metarl sweep FILE.yaml")


def test_a_factor_sets_what_it_says(sweep_file):
    text = """
    base: {agent: rl2, family: quadruped_terrain}
    factors:
      family.payload_mass: {center: [1, 2.5], width: 1}
      family.difficulty: {width: [0.5]}
      family.kinds: [[flat], [flat, rough]]
      training.adaptations, evaluation.adaptations: [2]
      training.tasks: {low: 4, high: 64, log: true, levels: 3}
    """
    sweep = load_sweep(sweep_file(text))
    points = list(sweep.grid())
    assert len(points) == sweep.trials == 2 * 2 * 3
    first, last = sweep.config(points[0]), sweep.config(points[-1])
    assert first.family.payload_mass == (0.5, 1.5) and last.family.payload_mass == (2.0, 3.0)
    assert (first.family.difficulty_low, first.family.difficulty_high) == (0.25, 0.75)  # the centre stays
    assert (first.family.kinds, last.family.kinds) == (("flat",), ("flat", "rough"))
    assert first.training.adaptations == first.evaluation.adaptations == 2
    assert sorted({sweep.config(p).training.tasks for p in points}) == [4, 16, 64]
    assert all(sweep.point(json.loads(json.dumps(p))) == p for p in points)  # by way of JSON, as W&B gives them


def test_the_tasks_to_judge_on_span_all_training_ranges_and_what_lies_outside(sweep_file):
    text = "base: {family: half_cheetah_velocity}\nfactors: {family.velocity: {center: [1, 2], width: [1, 2]}}\n"
    stick = yardstick(load_sweep(sweep_file(text)))
    # 0 to 2 ... 1 to 3, and half a width beyond the last
    assert dict(stick.wide) == {"target_velocity": Uniform(0.0, 4.0)}
    assert (stick.split, stick.varied) == ("wide", ("target_velocity",))
    stick = yardstick(load_sweep(sweep_file(text + "objective: {ranges: {target_velocity: [0, 9]}}")))
    assert dict(stick.wide) == {"target_velocity": Uniform(0.0, 9.0)}
    stick = yardstick(load_sweep(sweep_file("factors: {agent.inner_lr: [0.1]}")))
    assert (stick.split, dict(stick.wide)) == ("held_out", {})


def test_settings_that_are_no_training_range_are_not_shared(sweep_file):
    text = "base: {family: half_cheetah_velocity}\n"
    text += "factors: {family.horizon: [50, 200], family.velocity: {width: [1, 2]}}\n"
    assert yardstick(load_sweep(sweep_file(text))).unshared == ("family.horizon",)
    faults = "base: {family: quadruped, family.faults: [weak]}\nfactors: {family.fault_onset: [[0, 0], [90, 90]]}\n"
    assert yardstick(load_sweep(sweep_file(faults))).unshared == ("family.fault_onset",)
    assert yardstick(load_sweep(sweep_file("factors: {agent.inner_lr: [0.1]}"))).unshared == ()


@pytest.mark.parametrize(
    "text",
    [
        "base: {family: quadruped}\nfactors: {family.fault_onset: [[0, 0], [90, 90]]}\n",
        "base: {family: quadruped, family.fault_onset: [9, 9]}\nfactors: {agent.inner_lr: [0.1]}\n",
    ],
)
def test_settings_of_faults_without_a_fault_are_refused(text, sweep_file):
    with pytest.raises(UsageError, match=r"fault_onset has no effect without family\.faults: name the kinds too"):
        load_sweep(sweep_file(text))


FAULTS = {
    "family.faults: [[], [dead]]": ({}, ("family.faults",)),
    "family.faults: [[], [dead]], family.velocity: {width: [1, 2]}": (
        {"target_velocity": Uniform(0.0, 3.0)},
        ("family.faults",),
    ),
    "family.faults: [[], [weak]], family.fault_severity: [[0, 0.2], [0.5, 1]]": (
        {"fault_severity": Uniform(0.0, 1.0)},
        ("family.faults",),
    ),
    "family.faults: [[dead], [weak, dead]]": ({}, ("family.faults",)),
}


@pytest.mark.parametrize("factors", FAULTS)
def test_faults_that_only_some_variants_have_are_each_variants_own(factors, sweep_file):
    """The first kind of one variant is another than the first of another, so that no number stands for both."""
    stick = yardstick(load_sweep(sweep_file(f"base: {{family: half_cheetah_velocity}}\nfactors: {{{factors}}}")))
    assert (stick.wide, stick.unshared) == FAULTS[factors]


def test_a_fault_that_comes_back_does_so_with_a_severity_of_the_tasks_to_judge_on(sweep_file):
    family = make_family(
        HalfCheetahMassSettings(
            faults=("weak",), fault_severity=(0.0, 0.2), fault_duration=(10, 10), fault_repeats=3, fault_onset=(5, 5)
        )
    )
    task = widened(family, {"fault_severity": Uniform(0.8, 1.0)}).sample(1, np.random.default_rng(0), "held_out")[0]
    severities = [change.values["fault_severity"] for change in task.changes if change.values["fault_kind"]]
    assert len(severities) == 4 and min(severities) >= 0.8


def test_the_middle_of_a_family_with_faults_has_one(sweep_file):
    family = make_family(HalfCheetahMassSettings(faults=("encoder_offset", "weak"), fault_places=("bthigh", "fthigh")))
    middle = centre(family)
    assert family.faults.said(middle)[0] == "bthigh encoder offset (0.75)" and family.task(middle)
    held_out = make_family(HalfCheetahMassSettings(faults=("weak",), fault_held_out=(".*",)))
    assert "weak" in held_out.faults.said(centre(held_out))[0]


def test_a_mix_of_terrains_is_judged_on_all_kinds(sweep_file):
    text = """
    base: {family: half_cheetah_terrain}
    factors: {family.kinds: [[flat], [flat, rough]], family.proportions: [[], [1, 3]]}
    """
    sweep = load_sweep(sweep_file(text))
    assert yardstick(sweep).wide == {"terrain_kind": Choice((0.0, 4.0, 7.0, 8.0))}  # flat, rough; stepping stones, gaps


def test_hull_of_distributions_of_one_kind():
    assert hull([LogUniform(0.5, 2), LogUniform(0.25, 1)]) == LogUniform(0.25, 2)
    assert hull([Choice((1.0, 2.0)), Choice((5.0,))]) == Choice((1.0, 2.0, 5.0))


def test_distance_from_the_training_range_by_hand():
    axes = {"x": Uniform(0, 10), "m": LogUniform(0.25, 4)}  # log 4 / 0.25 = 4 log 2
    values = {"x": np.array([5, 0, 8, 8.0]), "m": np.array([1, 1, 2, 0.25])}
    ranges = {"x": [3, 5], "m": [0.5, 1]}
    assert distances(values, ranges, axes) == pytest.approx([0, 0.3, np.hypot(0.3, 0.25), np.hypot(0.3, 0.25)])
    assert distances(values, ranges, {"x": axes["x"]}) == pytest.approx([0, -0.3, 0.3, 0.3])
    assert distances({"k": np.array([1, 2.0])}, {"k": [1]}, {"k": Choice((1.0, 2.0))}) == pytest.approx([0, 1])


def test_cells_tile_the_axis():
    assert edges(Uniform(0, 4), 2) == [0, 2, 4] and cells(Uniform(0, 4), 2) == [1, 3]
    assert cells(LogUniform(1, 16), 2) == pytest.approx([2, 8])
    assert edges(Choice((3.0, 1.0)), 9) == [-0.5, 0.5, 1.5] and cells(Choice((3.0, 1.0)), 9) == [1, 3]


def test_the_example_of_the_documentation_is_a_sweep():
    sweep = load_sweep(Path(__file__).parents[2] / "docs/sweep_example.yaml")
    assert yardstick(sweep).split == "wide"
    assert yaml.safe_dump(config_to_dict(sweep.base))


@pytest.mark.parametrize("changed", ["arm.xml", "arm.yaml", "wide.yaml"])
def test_a_robot_that_has_changed_makes_another_sweep(changed, tmp_path):
    for name in ("arm.xml", "arm.yaml", "wide.yaml"):
        (tmp_path / name).write_text("one")
    (tmp_path / "base.yaml").write_text("family: {name: robot, model: arm.xml, file: arm.yaml}")
    (tmp_path / "s.yaml").write_text("base: {config: base.yaml}\nfactors: {family.file: [arm.yaml, wide.yaml]}")
    for _ in range(2):
        Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")
    (tmp_path / changed).write_text("another")
    expected = "results of another sweep: the file of family.(model|file|file=wide.yaml) has another content.*Undo the"
    with pytest.raises(UsageError, match=expected):
        Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")


def test_a_sweep_that_began_before_its_levels_files_were_noted_goes_on(tmp_path):
    for name in ("arm.xml", "arm.yaml", "wide.yaml"):
        (tmp_path / name).write_text("one")
    (tmp_path / "base.yaml").write_text("family: {name: robot, model: arm.xml, file: arm.yaml}")
    (tmp_path / "s.yaml").write_text("base: {config: base.yaml}\nfactors: {family.file: [arm.yaml, wide.yaml]}")
    Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")
    spec = json.loads((tmp_path / "s/sweep.json").read_text())
    spec["files"] = {name: value for name, value in spec["files"].items() if "=" not in name}
    (tmp_path / "s/sweep.json").write_text(json.dumps(spec))
    Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")


ARM = """
<mujoco>
  <include file="parts/joints.xml"/>
  <asset><mesh name="arm" file="parts/arm.obj"/></asset>
  <worldbody><body><joint/><geom type="mesh" mesh="arm"/></body></worldbody>
</mujoco>
"""
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
FILES = {
    "robot/arm.xml": ARM,
    "robot/parts/joints.xml": "<mujoco><default><joint damping='1'/></default></mujoco>",
    "robot/parts/arm.obj": TETRAHEDRON,
    "robot/arm.yaml": "distribution: {load: {function: edits.py:load, uniform: [0, 1]}}",
    "robot/edits.py": "def load(spec, value): ...",
    "robot/wide.yaml": "one",
    "s.yaml": "base: {agent: ppo, family: robot, family.model: robot/arm.xml}\n"
    "factors: {family.file: [robot/arm.yaml, robot/wide.yaml]}",
}


def write_sweep(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "s.yaml"


@pytest.mark.parametrize("old", [False, True])
def test_a_sweep_goes_on_wherever_its_folder_and_the_robots_files_lie(old, tmp_path):
    Study(load_sweep(write_sweep(tmp_path / "here")), tmp_path / "here/runs/s")
    if old:  # older versions wrote absolute paths, and not what the files name
        spec = json.loads((tmp_path / "here/runs/s/sweep.json").read_text())
        spec["base"]["family"] |= {"model": "/gone/robot/arm.xml", "file": "/gone/robot/arm.yaml"}
        del spec["parts"]
        (tmp_path / "here/runs/s/sweep.json").write_text(json.dumps(spec))
    (tmp_path / "here").rename(tmp_path / "there")
    Study(load_sweep(tmp_path / "there/s.yaml"), tmp_path / "there/runs/s")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("robot/parts/joints.xml", "the file joints.xml, which family.model names, has another content"),
        ("robot/parts/arm.obj", "the file arm.obj, which family.model names, has another content"),
        ("robot/edits.py", "the file edits.py, which family.file names, has another content"),
    ],
)
def test_a_changed_file_that_a_robots_file_names_makes_another_sweep(changed, said, tmp_path):
    path = write_sweep(tmp_path)
    Study(load_sweep(path), tmp_path / "runs/s")
    (tmp_path / changed).write_text(FILES[changed].replace("1", "2").replace("...", "pass"))
    with pytest.raises(UsageError, match=said):
        Study(load_sweep(path), tmp_path / "runs/s")


def test_a_robot_of_another_name_makes_another_sweep(tmp_path):
    path = write_sweep(tmp_path)
    Study(load_sweep(path), tmp_path / "runs/s")
    (tmp_path / "robot/arm.xml").rename(tmp_path / "robot/leg.xml")
    path.write_text(FILES["s.yaml"].replace("arm.xml", "leg.xml"))
    with pytest.raises(UsageError, match=r"base.family.model was arm.xml, is leg.xml. Undo the change"):
        Study(load_sweep(path), tmp_path / "runs/s")


def test_files_of_a_sweep_lie_beside_it_wherever_it_is_started(tmp_path, monkeypatch):
    (tmp_path / "s.yaml").write_text(
        "base: {agent: ppo, family: robot, family.model: parts/arm.xml}\nfactors: {family.file: [a.yaml, /b/c.yaml]}"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    sweep = load_sweep(tmp_path / "s.yaml")
    assert [sweep.config(point).family for point in sweep.grid()] == [
        RobotSettings(str(tmp_path / "parts/arm.xml"), file) for file in (str(tmp_path / "a.yaml"), "/b/c.yaml")
    ]
    assert [point["family.file"] for point in sweep.grid()] == ["a.yaml", "/b/c.yaml"]  # as reports name them
    assert sweep.base.family == sweep.config(next(sweep.grid())).family  # not the example's tasks on another robot
