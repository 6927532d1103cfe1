"""Problems that tests of a constraint solver share, and their solutions by MuJoCo in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import mujoco_warp as mjw
import numpy as np

from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntVelocitySettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings, Walker2dParametersSettings

NUM_WORLDS = 24
NJMAX, NCONMAX = 96, 48
# Contacts of a ball, a box and a capsule on one another and on the ground; joint and tendon limits and friction loss;
# equalities of every kind. condim and cone are the test's.
SCENE = """<mujoco><option cone="{cone}" timestep=".004"/>
<default><geom condim="{condim}" friction=".7 .02 .01"/></default>
<worldbody><geom type="plane" size="5 5 .1"/>
  <body name="box" pos="0 0 .11"><freejoint/><geom type="box" size=".12 .1 .1" mass="2"/></body>
  <body name="ball" pos=".5 .01 .155"><freejoint/><geom size=".08" mass=".5"/></body>
  <body name="held" pos=".5 0 .04" euler="90 10 0"><freejoint/><geom type="capsule" size=".04 .1" mass=".7"/></body>
  <body name="upper" pos="0 1 .5"><joint name="hip" axis="0 1 0" range="-40 40" limited="true" frictionloss=".4"/>
    <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03"/>
    <body name="lower" pos=".3 0 0">
      <joint name="knee" axis="0 1 0" range="-90 10" limited="true" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03"/></body></body>
  <body name="crank" pos="0 -1 .4"><joint name="crank" axis="0 1 0"/>
    <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02"/>
    <body name="rod" pos=".2 0 0"><joint name="rod" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body></body>
  <body name="car" pos="0 2 .2"><joint name="car" type="slide" axis="1 0 0"/><geom size=".05"/></body>
</worldbody>
<tendon><fixed name="belt" limited="true" range="-.2 .2" frictionloss=".3">
  <joint joint="hip" coef="1"/><joint joint="knee" coef=".5"/></fixed></tendon>
<equality><connect body1="rod" body2="world" anchor=".3 0 0"/><weld body1="held" body2="world" solref=".05 1"/>
  <joint joint1="car" joint2="crank" polycoef="0 .3 0 0 0"/></equality>
<actuator><motor joint="hip" gear="3"/><motor joint="knee" gear="2"/><motor joint="crank"/></actuator>
<sensor><jointpos joint="hip"/><framelinacc objtype="body" objname="lower"/><jointlimitfrc joint="hip"/></sensor>
</mujoco>"""


def scene(cone: str, condim: int) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(SCENE.format(cone=cone, condim=condim))


def family(of: type, **given: object) -> Callable[[], mujoco.MjModel]:
    def build() -> mujoco.MjModel:
        made = make_family(of(**given))
        model = made.compile(made.sample(1, np.random.default_rng(0))[0])
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON  # Gymnasium's humanoid asks for PGS
        return model

    return build


def locked_quadruped() -> mujoco.MjModel:
    """The quadruped with one joint held by an equality."""
    made = make_family(QuadrupedSettings(physics="exact"))
    spec = made.spec(made.neutral())
    equality = spec.add_equality()
    equality.type, equality.objtype = mujoco.mjtEq.mjEQ_JOINT, mujoco.mjtObj.mjOBJ_JOINT
    equality.name1 = next(j.name for j in spec.joints if j.type == mujoco.mjtJoint.mjJNT_HINGE)
    equality.data[:5] = 0.5, 0, 0, 0, 0
    return spec.compile()


def chain(dofs: int) -> mujoco.MjModel:
    """A chain of hinges with limits and friction loss that lies on the ground."""
    joint = '<joint axis="0 {y} {w}" range="-60 60" limited="true" frictionloss=".05" armature=".02"/>'
    body = f'<body pos="{{x}} 0 {{z}}">{joint}'
    geom = '<geom type="capsule" fromto="0 0 0 .1 0 0" size=".02" conaffinity="0"/>'
    places = [{"x": 0.1 * (i > 0), "z": 0.03 * (i == 0), "y": i % 2, "w": 1 - i % 2} for i in range(dofs)]
    links = "".join(body.format(**place) + geom for place in places) + "</body>" * dofs
    world = f'<worldbody><geom type="plane" size="5 5 .1"/>{links}</worldbody>'
    return mujoco.MjModel.from_xml_string(f'<mujoco><option cone="elliptic" jacobian="dense"/>{world}</mujoco>')


SCENES = {f"{cone}-{condim}": (cone, condim) for cone in ("pyramidal", "elliptic") for condim in (1, 3, 4, 6)}
ROBOTS: dict[str, Callable[[], mujoco.MjModel]] = {
    "half_cheetah": family(HalfCheetahVelocitySettings),
    "quadruped": family(QuadrupedSettings, physics="exact"),
    "locked_quadruped": locked_quadruped,
}
MORE_ROBOTS = {
    "ant": family(AntVelocitySettings),
    "humanoid": family(HumanoidDirectionSettings),
    "hopper": family(HopperParametersSettings),
    "walker2d": family(Walker2dParametersSettings),
}


@dataclass
class States:
    """Full states of NUM_WORLDS worlds, in float32."""

    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    warmstart: np.ndarray


def visited(model: mujoco.MjModel, seed: int = 0) -> States:
    """States on the way of a random policy, every third moved some centimetres into the ground, every third faster."""
    rng, data, states = np.random.default_rng(seed), mujoco.MjData(model), []
    free = model.nq > model.nv
    for world in range(NUM_WORLDS):
        if world % 8 == 0:
            mujoco.mj_resetDataKeyframe(model, data, 0) if model.nkey else mujoco.mj_resetData(model, data)
            data.qvel[:] = rng.normal(scale=0.3, size=model.nv)
        low, high = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, [-1, 1]).T
        data.ctrl[:] = rng.uniform(low, high)
        mujoco.mj_step(model, data, 12)
        qpos, qvel = data.qpos.copy(), data.qvel.copy()
        if world % 3 == 1:
            qpos[2 if free else 1] -= rng.uniform(0, 0.05)
        if world % 3 == 2:
            qvel += rng.normal(scale=3, size=model.nv)
        states.append((qpos, qvel, data.ctrl.copy(), data.qacc_warmstart.copy()))
    return States(*(np.array(column, np.float32) for column in zip(*states, strict=True)))


def on_warp(model: mujoco.MjModel, states: States, **changes: int) -> tuple[mjw.Model, mjw.Data]:
    m = mjw.put_model(model)
    d = mjw.make_data(model, nworld=NUM_WORLDS, njmax=changes.pop("njmax", NJMAX), nconmax=NCONMAX)
    m.opt.warn_overflow = 0
    for name, value in changes.items():
        setattr(m.opt, name, value)
    for field, value in zip((d.qpos, d.qvel, d.ctrl, d.qacc_warmstart), vars(states).values(), strict=True):
        field.assign(value)
    return m, d


class Exact:
    """MuJoCo's solution in double precision of the problem that mujoco_warp has posed in one world, and its cost.

    Reference accelerations are mujoco_warp's: those of moving connects and welds differ from MuJoCo's by some percent.
    """

    def __init__(self, model: mujoco.MjModel, states: States, d: mjw.Data, world: int):
        self.model, self.data = model, mujoco.MjData(model)
        self.data.qpos[:], self.data.qvel[:], self.data.ctrl[:] = (
            states.qpos[world],
            states.qvel[world],
            states.ctrl[world],
        )
        mujoco.mj_forward(model, self.data)
        self.same = self.data.nefc == d.nefc.numpy()[world] and self._take_references(d, world)
        tolerance, iterations = model.opt.tolerance, model.opt.iterations
        model.opt.tolerance, model.opt.iterations = 1e-15, 500
        mujoco.mj_fwdConstraint(model, self.data)
        model.opt.tolerance, model.opt.iterations = tolerance, iterations
        self.qacc = self.data.qacc.copy()

    def _take_references(self, d: mjw.Data, world: int) -> bool:
        """Give each row mujoco_warp's reference; False if it has no such row."""
        data, n = self.data, self.data.nefc
        if n == 0:
            return True
        ours = np.stack([self._times_jacobian(unit) for unit in np.eye(self.model.nv)], 1)  # J
        ours = np.column_stack([ours, np.log(data.efc_D), 10 * data.efc_type, data.efc_aref / 1e5])
        columns = (d.efc.J.numpy()[world, :n, : self.model.nv], np.log(d.efc.D.numpy()[world, :n]))
        aref = d.efc.aref.numpy()[world, :n]
        theirs = np.column_stack([*columns, 10 * d.efc.type.numpy()[world, :n], aref / 1e5])
        apart = np.abs(ours[:, None] - theirs[None]).max(2)  # [row, row]
        data.efc_aref[:] = aref[apart.argmin(1)]
        return max(apart.min(0).max(), apart.min(1).max()) < 3e-3

    def _times_jacobian(self, vector: np.ndarray) -> np.ndarray:
        product = np.zeros(self.data.nefc)
        mujoco.mj_mulJacVec(self.model, self.data, product, vector)
        return product

    def error(self, qacc: np.ndarray) -> float:
        return np.abs(qacc - self.qacc).max() / np.abs(self.qacc).max()

    def excess(self, qacc: np.ndarray) -> float:
        """Cost above the minimum's, relative to the cost of standing still."""
        return (self._cost(qacc) - self._cost(self.qacc)) / self._cost(0 * qacc)

    def _cost(self, qacc: np.ndarray) -> float:
        qacc, force, cost = qacc.astype(float), np.zeros(self.model.nv), np.zeros(1)
        jar = self._times_jacobian(qacc) - self.data.efc_aref
        mujoco.mj_constraintUpdate(self.model, self.data, jar, cost, 0)
        away = qacc - self.data.qacc_smooth
        mujoco.mj_mulM(self.model, self.data, force, away)
        return cost[0] + 0.5 * force @ away
