"""Settings of every task family: its published variants.

Apart from the families, so that `metarl --help` need not import MuJoCo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

TerrainKind = Literal[
    "flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles", "stepping_stones", "gaps"
]


@dataclass(frozen=True)
class TerrainSettings:
    """The ground of a family on terrain."""

    kinds: tuple[TerrainKind, ...] = ("flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles")
    """Kinds of ground in training and in its held-out tasks."""
    proportions: tuple[float, ...] = ()
    """How often each of the kinds is drawn, relative to the others. Empty: equally often."""
    ood_kinds: tuple[TerrainKind, ...] = ("stepping_stones", "gaps")
    """Kinds that are never trained on: those of the split `ood`."""
    difficulty_low: float = 0.0
    """Lowest difficulty, in [0, 1]."""
    difficulty_high: float = 1.0
    """Highest difficulty, in [0, 1]."""
    height_scan: bool = False
    """Whether heights of the ground around the robot are observed."""
    promote_at: float = 200.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 50.0
    """Curriculum: mean return below which it goes down a level."""


@dataclass(frozen=True)
class PointGoalSettings:
    """Point goal (2D navigation): reach a goal on the plane that only the reward tells of (MAML 2017)."""

    goal_range: float = 0.5
    """Goals are uniform in the square [-goal_range, goal_range]^2, metres."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to 0.1 m a step."""
    horizon: int = 100
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahVelocitySettings:
    """HalfCheetah running at a target velocity: reward -|v - v*| - control cost."""

    velocity_low: float = 0.0
    """Lowest target velocity, m/s."""
    velocity_high: float = 2.0
    """Highest target velocity, m/s: 2 (MAML), 3 (PEARL, VariBAD), 7 (RoML)."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahDirectionSettings:
    """HalfCheetah running forwards or backwards: reward g v - control cost."""

    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""
    horizon: int = 200
    """Steps an episode: 200 (MAML, PEARL, VariBAD), 100 (ProMP)."""


@dataclass(frozen=True)
class HalfCheetahMassSettings:
    """HalfCheetah with scaled body masses (RoML): reward v - control cost + torso height."""

    mass_exponent: float = 1.0
    """Every body's mass is multiplied by m = 2^U(-mass_exponent, mass_exponent)."""
    inertia: Literal["published", "consistent"] = "published"
    """published: inertias stay neutral while masses and radii change (RoML); consistent: inertias scale with mass."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""
    changes: int = 0
    """Times that the mass becomes another while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class HalfCheetahDisabledJointSettings:
    """HalfCheetah with one motor that fails (Nagabandi 2019): reward v - control cost."""

    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""
    changes: int = 0
    """Times that another motor fails instead while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class HalfCheetahBodySettings:
    """HalfCheetah with body parts of other sizes, gym-extensions has .75 and 1.25: reward v - control cost."""

    size_range: float = 0.25
    """Radius and length of each part are U(1 - size_range, 1 + size_range) times the neutral ones."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahLimbsSettings:
    """HalfCheetah with legs of other lengths and thicknesses: reward v - control cost."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahTerrainSettings(TerrainSettings):
    """HalfCheetah running forwards on ground that it has to find out about: reward v - control cost."""

    ground_ahead: float = 80.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 20.0
    """Length of the ground behind the start, metres."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntDirectionSettings:
    """Ant in a direction: reward g v - control cost - contact cost + survive (ProMP, PEARL)."""

    directions: Literal["1d", "2d"] = "1d"
    """1d: forwards or backwards; 2d: any direction on the plane."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntGoalSettings:
    """Ant to a goal on the plane: reward -distance - control cost - contact cost (ProMP, PEARL, VariBAD)."""

    goal_radius: float = 3.0
    """Goals are uniform in the disc of this radius around the start, m."""
    observe_contact: bool = True
    """Observe the clipped contact forces of every body: 113 observations as published, otherwise 29."""
    control_cost: float = 0.1
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntVelocitySettings:
    """Ant at a target velocity: reward 1 - |v - v*| - control cost - contact cost + survive (MAML 2017)."""

    velocity_low: float = 0.0
    """Lowest target velocity, m/s."""
    velocity_high: float = 3.0
    """Highest target velocity, m/s."""
    control_cost: float = 0.005
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 0.05
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntCrippledSettings:
    """Ant with one leg that fails (Nagabandi 2019): reward v - control cost - contact cost + survive."""

    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""
    changes: int = 0
    """Times that another leg fails instead while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class AntLimbsSettings:
    """Ant with legs of other lengths and thicknesses: reward v - control cost - contact cost + survive."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntLegsSettings:
    """Ant of 3 to 6 legs, one policy for all: reward v - control cost - contact cost + survive."""

    legs: tuple[int, ...] = (3, 4, 6)
    """Numbers of legs in training."""
    held_out_legs: tuple[int, ...] = (5,)
    """Numbers of legs of held-out tasks. Empty: those of training."""
    length_range: float = 1.3
    """Lengths of the legs are logU(1 / length_range, length_range) times the neutral ones."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class AntTerrainSettings(TerrainSettings):
    """Ant running forwards on ground that it has to find out about: reward v - control - contact cost + survive."""

    promote_at: float = 300.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 200.0
    """Curriculum: mean return below which it goes down a level."""
    ground_ahead: float = 14.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 4.0
    """Length of the ground behind the start, metres."""
    ground_beside: float = 5.0
    """Width of the ground on either side of the start, metres."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HumanoidDirectionSettings:
    """Humanoid in a direction: reward 1.25 g v - control cost - contact cost + survive (PEARL, VariBAD)."""

    observation: Literal["gymnasium", "published", "posture"] = "gymnasium"
    """gymnasium: 348 elements as Humanoid-v5; published: 376, of which 28 more are constant; posture: 45."""
    control_cost: float = 0.1
    """Weight of the squared action, after clipping."""
    survive: float = 5.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-0.4, 0.4]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HopperParametersSettings:
    """Hopper with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""

    exponent: float = 3.0
    """Masses and frictions are 1.5^U(-exponent, exponent) times the neutral ones, dampings 1.3^U."""
    timestep: float = 0.004
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class Walker2dParametersSettings:
    """Walker2d with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""

    exponent: float = 3.0
    """Masses and frictions are 1.5^U(-exponent, exponent) times the neutral ones, dampings 1.3^U."""
    timestep: float = 0.004
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class Walker2dLimbsSettings:
    """Walker2d with legs of other lengths and thicknesses: reward v + survive - control cost."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    timestep: float = 0.002
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class QuadrupedSettings:
    """Quadruped (Unitree Go1) that follows velocity commands while its body, motors and ground vary.

    A range whose ends are equal is not varied: its quantity has that value in every task.
    """

    payload_mass: tuple[float, float] = (0.0, 5.0)
    """Mass on the trunk's back, kg; 0 without."""
    payload_x: tuple[float, float] = (-0.15, 0.15)
    """Place of the payload forwards of the trunk's middle, m."""
    payload_y: tuple[float, float] = (-0.05, 0.05)
    """Place of the payload to the left of the trunk's middle, m."""
    friction: tuple[float, float] = (0.3, 1.25)
    """Coefficient of sliding friction with the ground; 0.8 is neutral."""
    motor_strength: tuple[float, float] = (0.7, 1.1)
    """Factor on torque limits and gains of all motors."""
    kp: tuple[float, float] = (35.0, 35.0)
    """Proportional gain of the joints, N m/rad; 20 to 50 are usual."""
    kd: tuple[float, float] = (0.5, 0.5)
    """Derivative gain of the joints, N m s/rad; 0.3 to 1 are usual."""
    joint_damping: tuple[float, float] = (0.01, 0.01)
    """Damping of the joints besides kd, N m s/rad; to 0.1."""
    joint_friction: tuple[float, float] = (0.2, 0.2)
    """Friction loss of the joints, N m; 0 to 0.5."""
    armature: tuple[float, float] = (1.0, 1.0)
    """Factor on the rotors' inertia as the joints feel it; 0.8 to 1.2."""
    com_x: tuple[float, float] = (0.0, 0.0)
    """Displacement forwards of the trunk's centre of mass, m; to 0.05."""
    com_y: tuple[float, float] = (0.0, 0.0)
    """Displacement to the left of the trunk's centre of mass, m; to 0.05."""
    com_z: tuple[float, float] = (0.0, 0.0)
    """Displacement upwards of the trunk's centre of mass, m; to 0.05."""
    action_delay: tuple[float, float] = (0.0, 0.02)
    """From an action to its effect, s, in steps of the simulation (0.005 s); to 0.04."""
    sensor_noise: tuple[float, float] = (0.0, 0.0)
    """Factor on the usual standard deviation of each sensor's noise (1: that of legged_gym)."""
    push_velocity: tuple[float, float] = (0.0, 0.0)
    """What a push adds to the trunk's horizontal velocity, m/s, in a direction of its own each time; to 1."""
    push_interval: float = 2.0
    """Between pushes, s."""
    weak_joints: tuple[str, ...] = ()
    """Joints (FR_hip, FR_thigh, FR_calf, FL_..., RR_..., RL_...) of which one, or none, is weak in a task."""
    weak_strength: float = 0.3
    """Factor on torque limit and gains of the weak joint."""
    locked_joints: tuple[str, ...] = ()
    """Joints of which one, or none, is locked at its home angle in a task."""
    slope: tuple[float, float] = (0.0, 0.0)
    """Angle at which the ground rises along x, rad; episodes start with any heading. To 0.4."""
    command: Literal["episode", "task"] = "episode"
    """episode: the velocity command is drawn at each start and observed; task: it is a parameter, and observed."""
    forward_velocity: tuple[float, float] = (-1.0, 1.0)
    """Commanded velocity forwards, m/s."""
    sideways_velocity: tuple[float, float] = (-0.5, 0.5)
    """Commanded velocity to the left, m/s."""
    yaw_rate: tuple[float, float] = (-1.0, 1.0)
    """Commanded rate of turning to the left, rad/s."""
    observe_velocity: bool = False
    """Whether the base's linear velocity, which a robot has no sensor for, is observed too."""
    action_scale: float = 0.25
    """Radians from home that an action of 1 asks of a joint; clipped to 0.8 rad."""
    horizon: int = 250
    """Steps an episode, 0.02 s each; 1000 is usual where nothing adapts."""
    changes: int = 0
    """Times that the parameters of `changing` become others while a task lasts. 0: never."""
    changing: tuple[str, ...] = ("payload_mass",)
    """Parameters that change: a payload is dropped, the ground is another, a joint fails."""
    change_gap: tuple[int, int] = (125, 375)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class Walker2dTerrainSettings(TerrainSettings):
    """Walker2d running forwards on ground that it has to find out about: reward v + survive - control cost."""

    promote_at: float = 300.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 150.0
    """Curriculum: mean return below which it goes down a level."""
    ground_ahead: float = 30.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 10.0
    """Length of the ground behind the start, metres."""
    timestep: float = 0.002
    """Simulation step, s; a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 500
    """Steps an episode."""


@dataclass(frozen=True)
class QuadrupedTerrainSettings(QuadrupedSettings, TerrainSettings):
    """Quadruped that follows velocity commands on ground that it has to find out about."""

    promote_at: float = 4.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 2.0
    """Curriculum: mean return below which it goes down a level."""
    ground_around: float = 6.5
    """Length of the ground on all four sides of the start, metres; an episode is cut a metre before its end."""


@dataclass(frozen=True)
class RobotSettings:
    """Your own robot: a model, and a YAML file that declares what varies; --robot and --family name the two."""

    model: str = field(default="", metadata={"file": True})
    """MJCF or URDF file, or a function that returns an MjSpec: file.py:function. Empty: the example, a crawler."""
    file: str = field(default="", metadata={"file": True})
    """YAML file with task and distribution. Empty: the example's."""
    horizon: int = -1
    """Steps an episode. -1: as the YAML file says."""


FamilySettings = (
    PointGoalSettings
    | HalfCheetahVelocitySettings
    | HalfCheetahDirectionSettings
    | HalfCheetahMassSettings
    | HalfCheetahDisabledJointSettings
    | HalfCheetahBodySettings
    | HalfCheetahLimbsSettings
    | HalfCheetahTerrainSettings
    | AntDirectionSettings
    | AntGoalSettings
    | AntVelocitySettings
    | AntCrippledSettings
    | AntLimbsSettings
    | AntLegsSettings
    | AntTerrainSettings
    | HumanoidDirectionSettings
    | HopperParametersSettings
    | Walker2dParametersSettings
    | Walker2dLimbsSettings
    | Walker2dTerrainSettings
    | QuadrupedSettings
    | QuadrupedTerrainSettings
    | RobotSettings
)

FAMILY_SETTINGS: dict[str, type[FamilySettings]] = {
    "point_goal": PointGoalSettings,
    "half_cheetah_velocity": HalfCheetahVelocitySettings,
    "half_cheetah_direction": HalfCheetahDirectionSettings,
    "half_cheetah_mass": HalfCheetahMassSettings,
    "half_cheetah_disabled_joint": HalfCheetahDisabledJointSettings,
    "half_cheetah_body": HalfCheetahBodySettings,
    "half_cheetah_limbs": HalfCheetahLimbsSettings,
    "half_cheetah_terrain": HalfCheetahTerrainSettings,
    "ant_direction": AntDirectionSettings,
    "ant_goal": AntGoalSettings,
    "ant_velocity": AntVelocitySettings,
    "ant_crippled": AntCrippledSettings,
    "ant_limbs": AntLimbsSettings,
    "ant_legs": AntLegsSettings,
    "ant_terrain": AntTerrainSettings,
    "humanoid_direction": HumanoidDirectionSettings,
    "hopper_parameters": HopperParametersSettings,
    "walker2d_parameters": Walker2dParametersSettings,
    "walker2d_limbs": Walker2dLimbsSettings,
    "walker2d_terrain": Walker2dTerrainSettings,
    "quadruped": QuadrupedSettings,
    "quadruped_terrain": QuadrupedTerrainSettings,
    "robot": RobotSettings,
}
"""Every family by name."""
