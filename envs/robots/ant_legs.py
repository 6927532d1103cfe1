"""Ants with 3 to 6 legs as one family: observation and action are padded, and a mask tells which legs there are.

With four legs it is Gymnasium's Ant with legs numbered around the torso. Models differ in layout, so each number of
legs is a batch of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import mujoco
import numpy as np

from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.layouts import joined, number_of_parts
from metarl.envs.locomotion import control_cost, free_observation, survival
from metarl.envs.parameters import Law, LogUniform, Parameter, outside_scale
from metarl.envs.rendering import AZIMUTH, follow
from metarl.envs.robots import ant
from metarl.envs.robots.ant_settings import FEWEST_LEGS, MOST_LEGS, AntLegsSettings
from metarl.envs.robots.feet import telling_contacts
from metarl.envs.robots.morphology import lengthen, lowest, stand
from metarl.envs.terms import RewardTerm

SEGMENT = 0.2 * math.sqrt(2)  # m, stub and upper leg; the lower leg is twice as long
RADIUS = 0.08  # m, of every segment
FIRST_LEG = math.pi / 4  # rad, its direction from the torso, forwards and to the left


@functools.cache
def _bare() -> mujoco.MjSpec:
    """Return Gymnasium's Ant without its legs."""
    spec = mujoco.MjSpec.copy(ant.geometric_base())
    for leg in list(spec.body("torso").bodies):
        spec.delete(leg)
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    return spec


def base(legs: int) -> mujoco.MjSpec:
    """Return an ant with legs at equal angles around the torso."""
    spec = _bare().copy()
    for i in range(legs):
        _add_leg(spec, i + 1, FIRST_LEG + 2 * math.pi * i / legs)
    return spec


def _add_leg(spec: mujoco.MjSpec, number: int, angle: float) -> None:
    outwards = np.array([math.cos(angle), math.sin(angle), 0.0])
    across = (-math.sin(angle), math.cos(angle), 0.0)
    body, place = spec.body("torso"), np.zeros(3)
    for part, joint, length in (("stub", "", 1), ("upper_leg", "hip", 1), ("lower_leg", "ankle", 2)):
        body = body.add_body(name=f"{part}_{number}", pos=place)
        if joint:
            hip = joint == "hip"
            body.add_joint(
                name=f"{joint}_{number}",
                axis=(0, 0, 1) if hip else across,
                range=(-30, 30) if hip else (30, 70),  # degrees, as in Gymnasium's file
            )
            motor = spec.add_actuator(
                name=f"{joint}_{number}",
                target=f"{joint}_{number}",
                trntype=mujoco.mjtTrn.mjTRN_JOINT,
                ctrlrange=(-1, 1),
                ctrllimited=True,
            )
            motor.gear[0] = 150
        place = length * SEGMENT * outwards
        orientation = np.zeros(4)
        mujoco.mju_quatZ2Vec(orientation, outwards)
        body.add_geom(
            name=f"{part}_{number}",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=(RADIUS, length * SEGMENT / 2, 0),
            pos=place / 2,
            quat=orientation,
        )


def lengthen_legs(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply the length of every upper and lower leg."""
    for joint in spec.joints:
        if joint.name.startswith(("hip", "ankle")):
            lengthen(spec, factor, joint=joint.name)


def look_down(spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
    """Let a picture's camera look down on the robot's legs."""
    follow(spec, 4.0, AZIMUTH, -40.0)


@functools.cache
def _height() -> float:
    return lowest(base(4))


def _with_legs(settings: AntLegsSettings, number: int, length: Parameter) -> TaskFamily:
    """Return the family of ants with this number of legs."""
    legs = range(1, number + 1)
    joints = tuple(f"{joint}_{leg}" for leg in legs for joint in ("hip", "ankle"))
    family = TaskFamily(
        name="ant_legs",
        description="Ant of 3 to 6 legs, forwards as fast as it can",
        base=functools.partial(base, number),
        parameters=(length,),
        settle=functools.partial(stand, height=_height()),
        observation=free_observation("torso", joints),
        rewards={
            "velocity": RewardTerm(ant.forward_velocity),
            **survival(settings, ant.fallen),
            "control": RewardTerm(functools.partial(control_cost, of="ctrl"), weight=-settings.control_cost),
            "contact": RewardTerm(ant.contact_cost, weight=-settings.contact_cost),
        },
        reset=ant.reset,
        action_low=np.full(len(joints), -1.0),
        action_high=np.full(len(joints), 1.0),
        horizon=settings.horizon,
        frame_skip=ant.FRAME_SKIP,
        control=read_signals(base(number).compile(), "force"),
        action_scale=settings.action_scale,
        terminate=ant.fallen,
        previous=("xpos",),
        decorate=look_down,
        settings=settings,
        groups={f"leg_{leg}": (f"hip_{leg}", f"ankle_{leg}") for leg in legs},
        **ant.walking(ant.forward_velocity),
    )
    feet = {f"foot_{leg}": f"lower_leg_{leg}" for leg in legs}
    return telling_contacts(family, feet)


def ant_legs(settings: AntLegsSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 - contact cost + 1 on a torso of unknown legs."""
    legs = number_of_parts("legs", settings.legs, settings.held_out_legs, 4, "legs, evenly around the torso")
    length = Parameter(
        name="leg_length",
        unit="1",
        distribution=LogUniform(1 / settings.length_range, settings.length_range),
        law=Law("length of all legs x value, mass by density", lengthen_legs),
        neutral=1.0,
        above=0.0,
        ood=outside_scale(settings.length_range),
    )
    return joined(
        legs,
        {float(n): _with_legs(settings, n, length) for n in range(FEWEST_LEGS, MOST_LEGS + 1)},
    )
