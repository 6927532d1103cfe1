"""One's own robot over its ground and in its own frame: heights, headings, and which way is up."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.pose import standing_height
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.state import State

ROBOT = """<mujoco model="dog">
  <compiler angle="radian"/>
  <option timestep=".005"/>
  {head}
  <worldbody>
    {scene}
    <body name="hull" pos="{place}" quat="{quat}">{root}<frame quat="{back}">
      <geom name="hull" type="box" size=".2 .1 .05" mass="3"/>
      <body name="front" pos=".15 0 -.05"><joint name="hip1" axis="0 1 0" range="-1 1" damping=".5"/>
        <geom type="capsule" size=".02" fromto="0 .1 0 0 .1 -.2" mass=".2"/>
        <geom type="capsule" size=".02" fromto="0 -.1 0 0 -.1 -.2" mass=".2"/>
        <body name="toe" pos="0 .1 -.2"><geom size=".03" mass=".1"/></body></body>
      <body name="rear" pos="-.15 0 -.05"><joint name="hip2" axis="0 1 0" range="-1 1" damping=".5"/>
        <geom type="capsule" size=".02" fromto="0 .1 0 0 .1 -.2" mass=".2"/>
        <geom type="capsule" size=".02" fromto="0 -.1 0 0 -.1 -.2" mass=".2"/></body>
    </frame></body>
  </worldbody>
  <actuator><position name="hip1" joint="hip1" kp="40" kv="1" ctrlrange="-1 1"/>
    <position name="hip2" joint="hip2" kp="40" kv="1" ctrlrange="-1 1"/></actuator>
</mujoco>"""
MOTOR = '<motor name="t" joint="hip3" ctrlrange="-1 1"/>'
LOWER = 'pos="0 0 -1"'
PLANE = '<geom name="ground" type="plane" size="0 0 1" {}/>'
TERMS = (
    *("forward_velocity", "height", "upright", "track_velocity", "track_yaw", "velocity_error", "alive"),
    *("control_cost", "joint_velocity_cost", "home_cost"),
)
COMMANDS = [
    {"name": kind, "quantity": kind, "distribution": "uniform", "range": ends}
    for kind, ends in (("command_x", [0.1, 0.9]), ("command_y", [-0.4, 0.4]), ("command_yaw", [-0.5, 0.5]))
]
SLOPE = {"name": "hill", "quantity": "slope", "operation": "set", "distribution": "uniform", "range": [-0.3, 0.3]}
PARTS = ["base_height", "up", "base_velocity", "base_angular_velocity", "joint_positions", "joint_velocities"]


def model(**parts: str) -> str:
    given = {"head": "", "scene": "", "root": "<freejoint/>", "place": "0 0 .3", "quat": "1 0 0 0", "back": "1 0 0 0"}
    return ROBOT.format(**{**given, **parts})


def files(folder: Path, text: str, **keys: object) -> tuple[str, str]:
    declared = {
        "reward": dict.fromkeys(TERMS, 1.0),
        "observation": [*PARTS, "last_action", "foot_heights", "command"],
        "distribution": COMMANDS,
        **keys,
    }
    (folder / "dog.xml").write_text(text)
    (folder / "dog.yaml").write_text(yaml.safe_dump(declared))
    return str(folder / "dog.xml"), str(folder / "dog.yaml")


def family_of(folder: Path, text: str, **keys: object) -> TaskFamily:
    return make_family(RobotSettings(*files(folder, text, **keys)))


def robot_of(folder: Path, text: str, **hints: object) -> Robot:
    return check_robot(*files(folder, text, robot=hints))[0]


def state_at(
    family: TaskFamily, models: list[mujoco.MjModel], poses: np.ndarray, qvel: np.ndarray | None = None
) -> State:
    """One simulation a pose [S, nq], each on its own model."""
    data = [mujoco.MjData(m) for m in models]
    for d, m, qpos, i in zip(data, models, poses, range(len(poses)), strict=True):
        d.qpos, d.qvel = qpos, 0.0 if qvel is None else qvel[i]
        mujoco.mj_forward(m, d)
    state = State(lambda name: np.array([np.copy(getattr(d, name)) for d in data]))
    state.take(models)
    state.task_index = np.arange(len(models))
    state.action = np.zeros((len(models), family.action_size))
    state.task = {p.name: np.full(len(models), p.neutral) for p in family.parameters}
    state.memory = {name: np.zeros((len(models), *shape)) for name, shape in family.memory.items()}
    if family.begin is not None:
        family.begin(state, np.ones(len(models), dtype=bool))
    return state


def part(family: TaskFamily, state: State, name: str) -> np.ndarray:
    """The columns of the observation whose names begin so, [S, n]."""
    chosen = [i for i, n in enumerate(family.observation_names) if n.startswith(name) or name in n]
    return family.observe(state)[:, chosen]


def turned(angle: float, axis: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> np.ndarray:
    quat = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quat, np.array(axis), angle)
    return quat


def tilt(angle: float) -> str:
    """Attributes of what rises along x."""
    return f'quat="{" ".join(map(str, turned(-angle)))}"'


def ramp(rows: int, columns: int, slope: float, half: float) -> str:
    """A heightfield that rises along x from 0 at its middle, over 2 half squared."""
    heights = " ".join(str(c / (columns - 1)) for _ in range(rows) for c in range(columns))
    size = f"{half} {half} {2 * half * slope} .1"
    return f'<asset><hfield name="f" nrow="{rows}" ncol="{columns}" size="{size}" elevation="{heights}"/></asset>'


def along(angle: float, x: float, z: float, through: tuple[float, float] = (0.0, 0.0)) -> float:
    """Distance of (x, z) from the line that rises by the angle through a point."""
    return -math.sin(angle) * (x - through[0]) + math.cos(angle) * (z - through[1])


TABLE = '<geom name="table" type="box" size=".5 .5 .1" pos="1 0 .1"/>'
GROUNDS: dict[str, tuple[dict[str, str], Callable[[float, float], float]]] = {
    "level": ({"scene": PLANE.format("")}, lambda x, z: z),
    "none, one is added": ({}, lambda x, z: z),
    "not at 0": ({"scene": PLANE.format('pos="3 2 -.7"'), "place": "0 0 -.4"}, lambda x, z: z + 0.7),
    "tilted": ({"scene": PLANE.format(tilt(0.3))}, lambda x, z: along(0.3, x, z)),
    "by Euler angles": ({"scene": PLANE.format('euler="0 -.3 0"')}, lambda x, z: along(0.3, x, z)),
    "in a body": (
        {"scene": f'<body pos="1 0 .2" {tilt(0.1)}><frame {tilt(0.1)}>{PLANE.format("")}</frame></body>'},
        lambda x, z: along(0.2, x, z, (1, 0.2)),
    ),
    "a valley": (
        {"scene": PLANE.format(tilt(0.3)) + PLANE.format(tilt(-0.2)).replace("ground", "other")},
        lambda x, z: min(along(0.3, x, z), along(-0.2, x, z)),
    ),
    "a wall": (
        {"scene": PLANE.format("") + '<geom name="wall" type="plane" size="0 0 1" zaxis="-1 0 0" pos="9 0 0"/>'},
        lambda x, z: z,
    ),
    "a table": ({"scene": PLANE.format("") + TABLE}, lambda x, z: z - 0.2 * (0.5 <= x <= 1.5)),
    "a disc": (
        {"scene": '<geom name="disc" type="cylinder" size="9 .2" pos="0 0 .1"/>'},
        lambda x, z: z - 0.3,
    ),
    "a mesh": (
        {
            "head": '<asset><mesh name="m" vertex="-3 -2 0 3 -2 0 -3 2 0 3 2 0 -3 -2 .1 3 -2 .1 -3 2 .1 3 2 .1"/>'
            "</asset>",
            "scene": '<geom name="ground" type="mesh" mesh="m" pos="0 0 -.4"/>',
        },
        lambda x, z: z + 0.3,
    ),
    "a ramp": (
        {"scene": f'<geom name="ramp" type="box" size="30 1 .1" {tilt(0.2)}/>'},
        lambda x, z: along(0.2, x, z) - 0.1,
    ),
    "a sloping heightfield": (
        {"head": ramp(5, 9, 0.25, 4.0), "scene": '<geom name="ground" type="hfield" hfield="f" pos="0 0 -1"/>'},
        lambda x, z: along(math.atan(0.25), x, z),
    ),
    "a turned heightfield on a plane": (
        {
            "head": ramp(5, 9, 0.25, 1.2),
            "scene": PLANE.format("")
            + '<body quat="0 0 0 1"><geom name="field" type="hfield" hfield="f" pos="0 0 .1"/></body>',
            "place": "0 0 1.2",
        },
        lambda x, z: along(-math.atan(0.25), x, z, (0, 0.4)) if abs(x) < 1.2 else z,
    ),
}


@pytest.mark.parametrize("ground", GROUNDS)
def test_height_is_over_the_ground_along_its_normal(ground, tmp_path):
    parts, height = GROUNDS[ground]
    bounds = {"height": [0.5, 2.0]}
    family = family_of(tmp_path, model(**parts), robot={"height": 1.0}, termination=bounds)
    compiled = family.compile(family.neutral())
    start = family.reset(compiled, np.random.default_rng(0), 1)[0]
    assert height(start[0, 0], start[0, 2]) == pytest.approx(1.0)  # what the file says
    rng = np.random.default_rng(1)
    poses = np.tile(start, (40, 1))
    poses[:, 0] = rng.uniform(-1.5, 1.5, 40) if "heightfield" in ground else rng.uniform(-2, 2, 40)
    poses[:, 1] = rng.uniform(-0.4, 0.4, 40)
    poses[:, 2] += rng.uniform(-0.3, 1.5, 40)
    poses[:, 3:7] = rng.normal(size=(40, 4))
    poses[:, 3:7] /= np.linalg.norm(poses[:, 3:7], axis=1, keepdims=True)
    state = state_at(family, [compiled] * 40, poses)
    expected = np.array([height(x, z) for x, z in poses[:, [0, 2]]])
    np.testing.assert_allclose(part(family, state, "base_height")[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(family.rewards["height"].function(state), expected, atol=1e-6)
    toe = compiled.body("toe").id
    feet = [height(x, z) for x, z in state.xipos[:, toe][:, [0, 2]]]
    np.testing.assert_allclose(part(family, state, "toe height")[:, 0], feet, atol=1e-6)
    assert family.terminate is not None
    assert family.terminate(state).tolist() == [not 0.5 <= h <= 2 for h in expected]
    falls = family.measures["falls"].function(state)
    assert np.asarray(falls, dtype=bool).tolist() == family.terminate(state).tolist()


def test_on_level_ground_heights_are_z_to_the_last_bit(tmp_path):
    family = family_of(tmp_path, model(scene=PLANE.format("")))
    sloped = family_of(tmp_path, model(scene=PLANE.format("")), distribution=[*COMMANDS, SLOPE])
    for f in (family, sloped):
        compiled = f.compile(f.neutral())
        poses = np.tile(f.reset(compiled, np.random.default_rng(0), 1)[0], (9, 1))
        poses[:, :3] = np.random.default_rng(2).normal(size=(9, 3))
        state = state_at(f, [compiled] * 9, poses)
        np.testing.assert_array_equal(part(f, state, "base_height")[:, 0], poses[:, 2])
        np.testing.assert_array_equal(f.rewards["height"].function(state), poses[:, 2])


@pytest.mark.parametrize(
    "scene",
    [
        PLANE.format(""),
        PLANE.format('pos="2 0 -.1" euler="0 .05 0"'),
        f'<body pos="0 0 .02"><frame euler="0 0 .4">{PLANE.format("")}</frame></body>',
        PLANE.format(tilt(0.1)) + PLANE.format(tilt(-0.1)).replace("ground", "other"),
    ],
)
def test_upright_on_a_slope_a_robot_is_as_high_everywhere(scene, tmp_path):
    """Tasks of other slopes in one batch, each over its own ground."""
    family = family_of(
        tmp_path,
        model(scene=scene),
        distribution=[*COMMANDS, SLOPE],
        robot={"height": 0.4},
        termination={"height": [0.3, 0.5], "tilt": 1.2},
    )
    angles = [-0.3, -0.1, 0.0, 0.2, 0.3]
    models = [family.compile(family.task({"hill": a})) for a in angles]
    poses = np.array([family.reset(m, np.random.default_rng(0), 1)[0][0] for m in models])
    for uphill in (0.0, -4.0, 4.0):
        for pose, m in zip(poses, models, strict=True):
            data = mujoco.MjData(m)
            mujoco.mj_kinematics(m, data)
            turn = data.geom("ground").xmat.reshape(3, 3)
            if "other" not in scene:
                pose[:3] += uphill * turn[:, 0]
        state = state_at(family, models, poses)
        np.testing.assert_allclose(part(family, state, "base_height")[:, 0], 0.4, atol=1e-9)
        assert family.terminate is not None and not family.terminate(state).any()
    env = BatchedEnv(family, len(angles), 2, 1)
    env.set_tasks([family.task({"hill": a}) for a in angles])
    heights = env.reset([np.random.default_rng(i) for i in range(len(angles))])[..., 0]
    np.testing.assert_allclose(heights, 0.4, atol=1e-6)


def test_with_any_heading_a_robot_starts_on_a_slope_as_on_level_ground(tmp_path):
    still = {"random_heading": True, "position_noise": 0, "velocity_noise": 0, "drop": 0.05}
    scene = PLANE.format("")
    family = family_of(tmp_path, model(scene=scene), distribution=[*COMMANDS, SLOPE], episode=still)
    levels = []
    for angle in (0.0, -0.3, 0.25):
        compiled = family.compile(family.task({"hill": angle}))
        data = mujoco.MjData(compiled)
        for pose in family.reset(compiled, np.random.default_rng(0), 8)[0]:
            data.qpos = pose
            mujoco.mj_kinematics(compiled, data)
            normal, robot = data.geom("ground").xmat.reshape(3, 3)[:, 2], data.geom_xpos[compiled.geom_bodyid > 0]
            levels.append((robot - data.geom("ground").xpos) @ normal)
            np.testing.assert_allclose(levels[-1], levels[0], atol=1e-12)
        assert np.ptp(family.reset(compiled, np.random.default_rng(0), 8)[0][:, 3:7], axis=0).max() > 0.5


@pytest.mark.parametrize("angle", [-0.2, 0.2])
def test_a_slope_tilts_ground_that_is_given_in_any_way_by_its_angle(angle, tmp_path):
    framed = f'<frame pos="0 0 1" euler="0 0 2">{PLANE.format(LOWER)}</frame>'
    for scene in (PLANE.format(""), PLANE.format('euler="0 0 .7"'), f'<body quat=".6 0 0 .8">{framed}</body>'):
        family = family_of(tmp_path, model(scene=scene), distribution=[*COMMANDS, SLOPE])
        compiled = family.compile(family.task({"hill": angle}))
        data = mujoco.MjData(compiled)
        mujoco.mj_kinematics(compiled, data)
        np.testing.assert_allclose(
            data.geom("ground").xmat[[2, 5, 8]], [-math.sin(angle), 0, math.cos(angle)], atol=1e-12
        )
        np.testing.assert_allclose(data.geom("ground").xpos, 0, atol=1e-12)


def test_a_slope_on_which_every_episode_would_end_at_once_is_refused(tmp_path):
    text, distribution = model(scene=PLANE.format("")), [*COMMANDS, SLOPE]
    with pytest.raises(ValueError, match="hill = -0.3 .*: termination ends every episode .* tilted by 0.3 rad"):
        family_of(tmp_path, text, distribution=distribution, termination={"tilt": 0.25})


def test_a_slope_of_ground_that_it_cannot_turn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a slope turns planes, and table would not turn with them"):
        family_of(tmp_path, model(scene=PLANE.format("") + TABLE), distribution=[*COMMANDS, SLOPE])
    cube = '<body name="cube" pos="2 0 .1"><freejoint/><geom name="cube" type="box" size=".1 .1 .1" mass="1"/></body>'
    with pytest.raises(ValueError, match="a slope turns planes, and cube would not turn with them"):
        family_of(tmp_path, model(scene=PLANE.format("") + cube), distribution=[*COMMANDS, SLOPE])


@pytest.mark.parametrize("ground", ["not at 0", "tilted", "a table", "a sloping heightfield", "in a body"])
def test_a_robot_that_starts_in_the_ground_is_lifted_onto_it(ground, tmp_path):
    parts, _ = GROUNDS[ground]
    z = {"not at 0": -0.65, "a table": 0.1}.get(ground, 0.0)
    robot = robot_of(tmp_path, model(**{**parts, "place": f"{1.0 if ground == 'a table' else 0} 0 {z}"}))
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_forward(robot.model, data)
    assert "lifted" in next(f.value for f in robot.findings if f.subject == "home pose") and not robot.questions
    assert min((c.dist for c in data.contact), default=0.0) > -1e-6
    data.qpos[2] -= 1e-3
    mujoco.mj_forward(robot.model, data)
    assert data.ncon > 0  # just so


@pytest.mark.parametrize("ground", ["not at 0", "tilted", "a table", "a sloping heightfield", "in a body"])
def test_standing_height_is_the_same_from_the_air_and_from_within_the_ground(ground, tmp_path):
    parts, _ = GROUNDS[ground]
    x, low = (1.0, 0.1) if ground == "a table" else (0.0, -0.65 if ground == "not at 0" else 0.0)
    lifted, dropped = (robot_of(tmp_path, model(**{**parts, "place": f"{x} 0 {z}"})) for z in (low, low + 2))
    assert standing_height(dropped) == pytest.approx(standing_height(lifted), abs=1e-6)
    at = lifted.home[:3]
    assert standing_height(lifted) == pytest.approx(lifted.ground.height_in(lifted.model, at), abs=1e-6)


TURNS = {
    "z up": ((1.0, 0.0, 0.0, 0.0), {}),
    "y up": (tuple(turned(math.pi / 2, (1, 0, 0))), {"up": "y"}),
    "x up, -z forwards": (tuple(turned(-math.pi / 2)), {"up": "x", "forward": "-z"}),
    "-z up, -y forwards": (None, {"up": "-z", "forward": "-y"}),
}


def rotated(name: str) -> tuple[str, dict[str, str]]:
    """The same robot in another frame of its base, and what the file says of it."""
    quat, hints = TURNS[name]
    if quat is None:  # columns: where the base's x, y, z point in the world
        matrix = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]], dtype=float)
        made = np.zeros(4)
        mujoco.mju_mat2Quat(made, matrix.ravel())
        quat = tuple(made)
    back = np.array(quat) * [1, -1, -1, -1]
    return model(scene=PLANE.format(""), quat=" ".join(map(str, quat)), back=" ".join(map(str, back))), hints


@pytest.mark.parametrize("name", TURNS)
def test_the_bases_own_axes_do_not_matter(name, tmp_path):
    """Whatever is up and forwards in the base's frame, the robot observes, earns and falls alike."""
    text, hints = rotated(name)
    bounds = {"height": [0.1, 0.6], "tilt": 0.8}
    plain = family_of(tmp_path, rotated("z up")[0], termination=bounds)
    other = family_of(tmp_path, text, robot=hints, termination=bounds)
    results = []
    for family in (plain, other):
        env = BatchedEnv(family, 2, 3, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(3)))
        rng = np.random.default_rng(4)
        seen = [env.reset([np.random.default_rng(i) for i in range(2)])]
        for _ in range(60):
            step = env.step(rng.uniform(-1, 1, (2, 3, 2)))
            seen += [step.observations, step.rewards[..., None], step.terminated[..., None]]
        results.append((seen, {k: v.copy() for k, v in env.term_sums.items()}))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    for term, total in results[0][1].items():
        np.testing.assert_allclose(total, results[1][1][term], atol=2e-4, err_msg=term)


@pytest.mark.parametrize("name", [n for n in TURNS if n != "z up"])
def test_a_base_whose_z_is_not_up_is_asked_about(name, tmp_path):
    text, hints = rotated(name)
    [question] = robot_of(tmp_path, text).questions
    assert "the z axis of base 'hull' does not point up at home" in question
    assert f"robot: {{up: {hints['up']}, forward: " in question
    with pytest.raises(ValueError, match="does not point up at home"):
        family_of(tmp_path, text)
    assert not robot_of(tmp_path, text, **hints).questions
    wrong = {"up": hints["up"], "forward": hints["up"].removeprefix("-")}
    with pytest.raises(ValueError, match="give an axis across it"):
        robot_of(tmp_path, text, **wrong)


def test_a_robot_that_leans_a_little_at_home_is_not_asked(tmp_path):
    assert not robot_of(
        tmp_path, model(scene=PLANE.format(""), quat=" ".join(map(str, turned(0.5))), place="0 0 .5")
    ).questions


def test_gravity_that_does_not_point_down_is_asked_about(tmp_path):
    text = model(scene=PLANE.format(""), head='<option gravity="0 -9.81 0"/>')
    assert any(
        "turn the model in its world until gravity points down z" in q for q in robot_of(tmp_path, text).questions
    )


def test_axes_of_a_base_that_is_fixed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the base is fixed; leave them out"):
        robot_of(tmp_path, model(root='<joint name="hip3"/>').replace("<actuator>", f"<actuator>{MOTOR}"), up="y")


@pytest.mark.parametrize("base", [None, "front"])
@pytest.mark.parametrize("name", ["z up", "y up"])
def test_after_any_turn_about_the_vertical_the_same_actions_earn_the_same(name, base, tmp_path):
    text, hints = rotated(name)
    text = text.replace('timestep=".005"', 'timestep=".005" cone="elliptic"')  # pyramids have sides
    if base and name != "z up":
        hints = {}  # the front leg's own frame is upright
    family = family_of(tmp_path, text, robot={**hints, **({"base": base} if base else {})})
    yaws = np.array([0.0, 0.7, math.pi / 2, -2.5, math.pi])
    env = BatchedEnv(family, 1, len(yaws), 1, measuring=True)
    env.set_tasks([family.task({"command_x": 0.5, "command_y": 0.2, "command_yaw": 0.3})])
    env.reset([np.random.default_rng(0)])
    qpos, qvel = env.simulation.batch.qpos[0].copy(), env.simulation.batch.qvel[0].copy()
    qvel[:6] = np.random.default_rng(5).uniform(-0.5, 0.5, 6)
    for i, yaw in enumerate(yaws):
        turn = turned(yaw, (0, 0, 1))
        env.simulation.batch.qpos[i], env.simulation.batch.qvel[i] = qpos, qvel
        for place, whole in (
            (env.simulation.batch.qpos[i, :3], qpos[:3]),
            (env.simulation.batch.qvel[i, :3], qvel[:3]),
        ):
            moved = np.zeros(3)
            mujoco.mju_rotVecQuat(moved, whole, turn)
            place[:] = moved
        quat = np.zeros(4)
        mujoco.mju_mulQuat(quat, turn, qpos[3:7])
        env.simulation.batch.qpos[i, 3:7] = quat
    env.simulation.batch.forward(np.arange(len(yaws)))
    rng = np.random.default_rng(6)
    for _ in range(15):  # before rounding grows in contacts
        step = env.step(np.tile(rng.uniform(-1, 1, (1, 1, 2)), (1, len(yaws), 1)))
        for values in (step.observations[0], step.rewards[0][:, None]):
            np.testing.assert_allclose(values, np.broadcast_to(values[:1], values.shape), atol=1e-5)
    for term, total in env.term_sums.items():
        np.testing.assert_allclose(total, total[0], atol=1e-6, err_msg=term)
    for measure, value in env.measures.items():
        np.testing.assert_allclose(value[0], value[0, 0], atol=1e-6, err_msg=measure)


def test_a_guided_base_is_commanded_along_its_guides(tmp_path):
    slides = '<joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>'
    root = f'{slides}<joint name="turn" axis="0 1 0"/>'
    family = family_of(
        tmp_path,
        model(root=root, scene=PLANE.format("")),
        observation=["base_velocity"],
        reward={"forward_velocity": 1, "track_velocity": 1, "track_yaw": 1},
    )
    compiled = family.compile(family.neutral())
    qpos = np.array([[0.0, 0.5, 2.5, 0, 0]])  # on its back
    state = state_at(family, [compiled], qpos, np.array([[0.6, 0.1, 0, 0, 0]]))
    np.testing.assert_allclose(family.rewards["forward_velocity"].function(state), 0.6)
