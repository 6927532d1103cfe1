"""Parameters that share what they vary, payloads that stand, edits of the user's own; a file says the quadruped's."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.own_robot.declaration import read_declaration
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_body import entries as body_entries
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_parameters import entries
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from tests.envs.own_robot.families import STILL, arm, at, entry, family_of
from tests.envs.own_robot.quadruped_file import parameter

SERVO = '<position name="lift" joint="lift" kp="30" kv="2" forcerange="-9 9" ctrlrange="-2 2"/>'
WIDE = {"kp": (20.0, 50.0), "kd": (0.3, 1.0), "joint_damping": (0.0, 0.1), "joint_friction": (0.0, 0.5)}
WIDE |= {"armature": (0.8, 1.2), "com_x": (-0.05, 0.05), "com_z": (0.0, 0.02), "slope": (-0.2, 0.2)}
WIDE |= {"sensor_noise": (0.5, 2.0), "push_velocity": (0.0, 1.0)}


def gains(model: mujoco.MjModel) -> list[float]:
    return [*model.actuator_gainprm[0, :1], *model.actuator_biasprm[0, :3], *model.actuator_forcerange[0]]


@pytest.mark.parametrize(
    "declared",
    [
        entries(QuadrupedSettings()),
        entries(QuadrupedSettings(physics="exact", command="task", **WIDE)),
        entries(QuadrupedSettings(weak_joints=("FR_calf",), locked_joints=("FL_hip",), **WIDE)),
        body_entries(QuadrupedBodySettings()),
    ],
    ids=["default", "exact", "joints", "body"],
)
def test_a_file_says_what_the_quadruped_varies(declared, tmp_path):
    file = tmp_path / "quadruped.yaml"
    file.write_text(yaml.safe_dump({"distribution": [parameter(said) for said in declared]}))
    read = read_declaration(file).distribution
    assert [dataclasses.replace(p, function=None) for p in read] == [
        dataclasses.replace(p, function=None) for p in declared
    ]
    own = {p.name for p in declared if p.function is not None}
    assert [p.name for p in read if p.function is not None] == [p.name for p in declared if p.name in own]


def test_of_the_quadruped_only_joints_that_fail_and_losses_as_damping_are_functions():
    whole = QuadrupedSettings(weak_joints=("FR_calf",), locked_joints=("FL_hip",), command="task", **WIDE)
    functions = {p.name for p in entries(whole) if p.quantity == "python"}
    assert functions == {"weak_joint", "locked_joint", "joint_friction"}


def test_energy_and_torque_are_those_that_the_joint_lets_through(tmp_path):
    """A joint's effort clips what acts, and leaves `actuator_force` as it was asked for."""
    servo = '<position name="lift" joint="lift" kp="100" ctrlrange="-2 2"/>'
    model = arm(tmp_path, servo, joint='actuatorfrclimited="true" actuatorfrcrange="-3 3"')
    reward = {"torque": 1, "torque_limits": {"weight": 1, "share": 0.5}}
    family = family_of(tmp_path, model, reward=reward, observation=["joint_forces"])
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    data, compiled, work = mujoco.MjData(env.simulation.batch.get_model(0)), env.simulation.batch.get_model(0), 0.0
    force = 0.0
    data.qpos[:] = env._state.qpos[0]
    mujoco.mj_forward(compiled, data)
    for _ in range(8):
        step = env.step(np.full((1, 1, 1), 1.5))
        data.ctrl[:] = env._state.ctrl[0]
        mujoco.mj_step(compiled, data, nstep=family.frame_skip)
        force = float(data.qfrc_actuator[0])
        assert step.observations[0, 0, 0] == pytest.approx(force, rel=1e-6)
        work += abs(force * data.qvel[0]) * family.dt
    sums = {name: float(np.ravel(total)[0]) for name, total in env.term_sums.items()}
    assert abs(float(data.actuator_force[0])) > 30 and abs(force) == pytest.approx(3.0)
    assert abs(sums["torque"]) == pytest.approx(8 * 9.0, rel=1e-6)
    assert abs(sums["torque_limits"]) == pytest.approx(8 * 1.5, rel=1e-6)
    assert np.ravel(env.measures["energy"])[0] == pytest.approx(work, rel=0.05)


def test_a_mass_at_its_neutral_value_leaves_what_a_radius_makes_of_it(tmp_path):
    wide = entry("radius", "boom", "scale", [1.0, 2.5])
    model, mass = (
        arm(tmp_path, SERVO),
        {**entry("mass", "boom", "scale", [0.5, 2]), "name": "m"},
    )
    text = Path(model).read_text().replace(' mass=".4"', ' density="500"')
    Path(model).write_text(text)
    for varied in ([wide], [wide, mass], [mass, wide]):
        family = family_of(tmp_path, model, *varied)
        masses = [float(family.compile(family.task({"p": p})).body_mass[1]) for p in (1.0, 2.0)]
        assert masses[1] > 3.5 * masses[0]


@pytest.mark.parametrize(
    "shape",
    [
        entry("link_length", "boom", "scale", [0.6, 1.5]),
        entry("size", "boom", "scale", [0.6, 1.5]),
        entry("radius", "boom", "scale", [0.6, 1.5]),
    ],
)
def test_a_mass_is_not_written_over_what_shapes_make_of_it(shape, tmp_path):
    mass, model = {**entry("mass", "boom", "add", [-0.1, 0.1]), "name": "m"}, arm(tmp_path, SERVO)
    set_mass = {**mass, "operation": "set", "range": [0.3, 0.5]}
    for varied in ((mass, shape), (shape, mass), (set_mass, shape)):
        with pytest.raises(ValueError, match="mass of boom follows from its shapes, which 'p' varies, .* use .* scale"):
            family_of(tmp_path, model, *varied)


def test_what_gravity_compensation_carries_is_that_of_the_neutral_robot(tmp_path):
    text = Path(arm(tmp_path, SERVO)).read_text().replace('<body name="boom"', '<body name="boom" gravcomp="1"')
    text = text.replace('<site name="tip"', '<body name="frame" pos=".5 0 0" gravcomp="1"/><site name="tip"')
    (tmp_path / "robot.xml").write_text(text)
    family = family_of(tmp_path, str(tmp_path / "robot.xml"), entry("gravity", None, "scale", [0.5, 1.5]))
    forces = []
    for factor in (1.0, 0.5):
        model = family.compile(family.task({"p": factor}))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        forces.append(float(data.qfrc_gravcomp[0]))
    assert forces[0] != 0 and forces[1] == pytest.approx(forces[0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"reward": {"joint_limits": {"weight": 1, "share": 2}}},
            "reward.joint_limits has share 2; it must be greater than 0, at most 1",
        ),
        (
            {"reward": {"torque_limits": {"weight": 1, "share": 0}}},
            "reward.torque_limits has share 0; it must be greater than 0",
        ),
        ({"changes": {"parameters": ["p"], "count": 1, "gap": [5, 9]}}, "changes has 'p', and radius cannot change"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        family_of(tmp_path, arm(tmp_path, SERVO), entry("radius", "boom", "scale", [0.8, 1.2]), **keys)


class TestComposition:
    def test_a_later_scale_goes_on_from_an_earlier_value(self, tmp_path):
        model = arm(tmp_path, SERVO)
        stiff = entry("kp", "lift", "set", [20, 40])
        for operation, ends, value, factor in (("scale", [0.5, 2], 1.5, 1.5),):
            second = {**entry("strength", "lift", operation, ends), "name": "q"}
            family = family_of(tmp_path, model, stiff, second)
            neutral = gains(family.compile(family.neutral()))
            both = gains(family.compile(family.task({"p": 20, "q": value})))
            kp, kd, force = 20 * factor, 2 * factor, 9 * factor
            home = neutral[1] / neutral[0]  # rad of home that the bias holds, of a gain of 1
            np.testing.assert_allclose(both, [kp, home * kp, -kp, -kd, -force, force])

    @pytest.mark.parametrize("order", [1, -1])
    def test_factors_multiply_in_either_order(self, order, tmp_path):
        two = [entry("kp", "lift", "scale", [20, 40], neutral=30), entry("strength", "lift", "scale", [0.5, 2])]
        two[1]["name"] = "q"
        family = family_of(tmp_path, arm(tmp_path, SERVO), *two[::order])
        assert gains(family.compile(family.task({"p": 20, "q": 1.5})))[2:4] == pytest.approx([-30, -3])
        assert family.neutral().values == {"p": 30, "q": 1} and family.parameters[::order][0].unit == "N m/rad"

    def test_value_minus_neutral_is_added(self, tmp_path):
        family = family_of(tmp_path, arm(tmp_path, SERVO), entry("damping", "lift", "add", [1.0, 3.0], neutral=1.0))
        assert at(family, 1.0).dof_damping[0] == pytest.approx(0.1)
        assert at(family, 2.5).dof_damping[0] == pytest.approx(1.6)

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            (entry("kp", "lift", "set", [20, 40]), "already; let one parameter vary it, or scale it here"),
            (entry("force_limit", "lift", "scale", [0.5, 1]), "force_limit of lift is varied by 'p' already; let one"),
            (entry("kd", "lift", "scale", [0.5, 1], neutral=0), "neutral is 0, and scale multiplies"),
            (entry("kd", "lift", "scale", [0.5, 1], stands_on="boom"), "stands_on is for quantity payload, not for kd"),
        ],
    )
    def test_what_would_undo_an_earlier_parameter_is_refused(self, second, message, tmp_path):
        first = entry("strength", "lift", "scale", [0.5, 2])
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, arm(tmp_path, SERVO), first, {**second, "name": "q"})

    @pytest.mark.parametrize(
        ("varied", "message"),
        [
            ({"position": [0, 0, 0.1]}, "position is for quantity payload, not for mass; leave it out"),
            ({"payload_density": 500}, "payload_density is for quantity payload, not for mass; leave it out"),
            ({"unit": "g"}, "unit is for quantity python, not for mass; leave it out"),
            ({"quantity": "payload", "payload_density": 500}, "payload_density is that of a cube; say on which box"),
            (
                {"quantity": "payload", "stands_on": "lift", "position": [0, 0, 0.1]},
                "position is ignored where the payload stands on lift; leave one of the two out",
            ),
        ],
    )
    def test_a_key_that_would_be_ignored_is_refused(self, varied, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, arm(tmp_path, SERVO), {**entry("mass", "boom", "set", [1, 2]), **varied})


SOLID = """<mujoco model="rotor"><compiler angle="radian"/>
  <worldbody><body name="rotor" pos="0 0 1"><joint name="lift"/>
  <inertial pos="0 0 0" mass="3" diaginertia=".010 .010 .015"/><geom type="box" size=".1 .1 .05"/></body></worldbody>
  <actuator><motor name="lift" joint="lift" ctrlrange="-1 1"/></actuator></mujoco>"""


def thinner(spec: mujoco.MjSpec, value: float) -> None:
    """An edit of one's own that writes a moment of inertia."""
    spec.body("rotor").inertia[1] *= value


def thinner_at_two(spec: mujoco.MjSpec, value: float) -> None:
    """An edit of one's own that is least between its ends."""
    spec.body("rotor").inertia[1] *= 0.6 if value == 2 else 1.0


class TestInertiaTogether:
    """Two moments of inertia of a body together are at least the third."""

    @staticmethod
    def declared(folder, *ends, second=None, splits=None):
        """A rotor whose first two moments of inertia are multiplied by numbers between these ends."""
        (folder / "rotor.xml").write_text(SOLID)
        said = [{**entry(f"inertia_{a}", "rotor", "scale", list(ends)), "name": f"about {a}"} for a in "xy"]
        said[1] = {**said[1], **(second or {})}
        for one, own in zip(said, splits or [], strict=False):
            one |= own
        scaled = {**entry("mass", "rotor", "scale", [0.1, 9]), "name": "mass"}
        return metarl.declare_robot(
            folder / "rotor.xml", {"reward": {"alive": 1}, "distribution": [*said, scaled], "episode": STILL}
        )

    def test_what_holds_at_all_corners_compiles(self, tmp_path):
        family = self.declared(tmp_path, 0.76, 1.2)
        for x, y in itertools.product((0.76, 1.2), repeat=2):
            model = family.compile(family.task({"about x": x, "about y": y, "mass": 3.0}))
            np.testing.assert_allclose(model.body("rotor").inertia, 3 * np.array([0.01 * x, 0.01 * y, 0.015]))
        for task in family.sample(50, np.random.default_rng(0)):
            family.compile(task)

    @pytest.mark.parametrize("own", [None, thinner])
    def test_what_fails_at_a_corner_is_refused(self, own, tmp_path):
        spec = mujoco.MjSpec.from_string(SOLID)
        spec.body("rotor").inertia = [0.006, 0.006, 0.015]
        with pytest.raises(ValueError, match=r"A \+ B >= C"):
            spec.compile()
        second = own and {"quantity": "python", "function": own, "neutral": 1.0, "target": None, "operation": None}
        message = r"about x = 0.6 \(.*\) and about y = 0.6 \(.*\) together make an impossible robot: of the moments of "
        with pytest.raises(ValueError, match=message + "inertia of body 'rotor' two.*narrow the range.*or vary mass"):
            self.declared(tmp_path, 0.6, 1.0, second=second)

    def test_every_value_of_a_choice_counts(self, tmp_path):
        chosen = {"quantity": "python", "function": thinner_at_two, "neutral": 1.0, "distribution": "choice"}
        second = {**chosen, "target": None, "operation": None, "range": [1, 2, 3]}
        with pytest.raises(
            ValueError, match=r"about x = 0.6 \(.*\) and about y = 2 \(.*\) together make an impossible"
        ):
            self.declared(tmp_path, 0.6, 1.0, second=second)

    def test_only_what_a_split_draws_together_counts(self, tmp_path):
        apart = [
            {"range": [0.76, 1.0], "splits": {"ood": [0.6, 0.7]}},
            {"range": [0.76, 0.9], "splits": {"ood": [0.95, 1.0]}},
        ]
        family = self.declared(tmp_path, 0.6, 1.0, splits=apart)
        for split in family.splits:
            for task in family.sample(20, np.random.default_rng(0), split):
                family.compile(task)
        apart[1]["splits"] = {"ood": [0.7, 0.75]}
        with pytest.raises(ValueError, match="about x = 0.6 .* and about y = 0.7 .* together"):
            self.declared(tmp_path, 0.6, 1.0, splits=apart)


BOX = """<mujoco model="cart"><worldbody><geom name="floor" type="plane" size="5 5 .1"/>
  <body name="cart" pos="0 0 .1"><freejoint/><geom name="deck" type="box" size=".3 .2 .1" pos="0 0 .02" mass="4"/>
    <geom name="lid" type="box" size=".3 .2 .1" euler="0 30 0" mass="1"/>
    <body name="arm" pos="0 0 .2"><joint name="turn" axis="0 0 1"/>
      <geom name="arm" type="capsule" size=".02" fromto="0 0 0 .2 0 0" mass=".3"/></body></body></worldbody>
  <actuator><motor joint="turn" ctrlrange="-1 1"/></actuator></mujoco>"""


def cart(folder: Path, *given: dict, **keys: object):
    (folder / "cart.xml").write_text(BOX)
    return family_of(folder, str(folder / "cart.xml"), *given, reward={"alive": 1}, **keys)


class TestPayload:
    STANDING = entry("payload", "cart", "set", [0, 5], stands_on="deck", payload_density=1000)

    def test_a_cube_stands_on_its_box(self, tmp_path):
        place = {**entry("payload_x", "cart", "set", [-0.1, 0.1]), "name": "q"}
        family = cart(tmp_path, self.STANDING, place)
        model = family.compile(family.task({"p": 2.0, "q": 0.05}))
        body, side = model.body("payload of cart"), 0.002 ** (1 / 3)
        assert body.mass[0] == pytest.approx(2)
        np.testing.assert_allclose(body.inertia, 2 * side**2 / 6)
        np.testing.assert_allclose(body.pos, [0.05, 0, 0.12 + side / 2])
        np.testing.assert_allclose(model.geom("payload of cart").size, side / 2)
        assert family.compile(family.neutral()).body("payload of cart").mass[0] == 0

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([{**STANDING, "stands_on": "arm"}], "stands_on is 'arm', which is no box of body 'cart'"),
            ([{**STANDING, "stands_on": "lid"}], "stands_on is 'lid', which is turned in its body"),
            ([{**STANDING, "payload_density": 0}], r"payload_density is 0 kg/m\^3; it must be greater than 0"),
            ([entry("payload_y", "cart", "set", [0, 0.1])], "body 'cart' has no payload; list its entry"),
            (
                [STANDING, {**entry("payload_z", "cart", "set", [0, 0.1]), "name": "q"}],
                "of payload of cart is varied by 'p' already",
            ),
        ],
    )
    def test_mistakes_are_named(self, given, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            cart(tmp_path, *given)


def test_friction_of_a_geom_that_has_priority_needs_no_pair(tmp_path):
    (tmp_path / "cart.xml").write_text(BOX.replace('mass="4"', 'mass="4" priority="1" friction=".7"'))
    grip = entry("friction", "deck", "set", [0.2, 0.9])
    family = family_of(tmp_path, str(tmp_path / "cart.xml"), grip, reward={"alive": 1})
    model = at(family, 0.3)
    assert model.npair == 0 and model.geom("deck").friction[0] == 0.3
    data = mujoco.MjData(model)
    data.qpos[2] = 0.07
    mujoco.mj_forward(model, data)
    found = [c.friction[:2] for c in data.contact if model.geom("deck").id in c.geom]
    assert found
    np.testing.assert_allclose(found, 0.3)


class TestOwnEdit:
    CODE = "def wide(spec, value):\n    spec.geom('deck').size[1] = value\n\n\ndef broken(spec, value):\n    1 / 0\n"
    WIDE = entry("python", None, None, [0.1, 0.3], function="edits.py:wide", neutral=0.2, unit="m", above=0.0)

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        (tmp_path / "edits.py").write_text(self.CODE)
        return tmp_path

    def test_it_edits_each_tasks_model(self, folder):
        family = cart(folder, {**self.WIDE, "says": "half its width"})
        assert at(family, 0.15).geom("deck").size[1] == 0.15
        (p,) = family.parameters
        assert (p.unit, p.law.description, p.neutral, p.above) == ("m", "half its width", 0.2, 0.0)

    def test_a_run_is_of_the_code_that_it_was_trained_with(self, folder):
        family = cart(folder, self.WIDE)
        settings = dataclasses.replace(family.settings, hooks=("0" * 64,))
        with pytest.raises(ValueError, match=r"edits.py:wide is not as the run was trained with it"):
            make_family(RobotSettings(settings.model, settings.file, hooks=settings.hooks))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"function": None}, "function is missing; write function: file.py:function"),
            ({"neutral": None}, "neutral is missing; say at which value the robot is unchanged"),
            ({"function": "edits.py:broken"}, "edits.py:broken failed: ZeroDivisionError"),
            ({"function": "edits.py:none"}, "cannot be loaded"),
            ({"operation": "set"}, "operation 'set' makes no sense for python; leave it out"),
            ({"quantity": "gravity", "operation": "scale"}, "function is for quantity python, not for gravity"),
        ],
    )
    def test_mistakes_are_named(self, change, message, folder):
        with pytest.raises(ValueError, match=message):
            cart(folder, {k: v for k, v in {**self.WIDE, **change}.items() if v is not None})


def test_bodies_without_mass_are_left_as_they_are_by_a_factor(tmp_path):
    path = arm(tmp_path, SERVO)
    model = Path(path).read_text().replace('<joint name="lift"', '<body name="mark"/><joint name="lift"')
    Path(path).write_text(model)
    family = family_of(tmp_path, path, entry("mass", ".*", "scale", [0.5, 2]))
    before, after = family.base().compile(), at(family, 2.0)
    assert after.body("mark").mass[0] == 0 and after.body("boom").mass[0] == pytest.approx(
        2 * before.body("boom").mass[0]
    )
    with pytest.raises(ValueError, match="mark has no mass; name others: target: "):
        family_of(tmp_path, path, entry("mass", ".*", "set", [0.5, 2]))
