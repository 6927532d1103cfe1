"""What MuJoCo warns of is counted, and neither printed nor written into a file."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs.mjcf import compile_neutral, load_spec
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.morphology import geometric_spec

CHEETAH = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
FAMILY = """
reward: {forward_velocity: 1}
distribution:
  - {name: m, target: torso, quantity: mass, operation: scale, distribution: uniform, range: [0.5, 2]}
"""
FUNCTION = f"""
import mujoco
def cheetah():
    return mujoco.MjSpec.from_file({str(CHEETAH)!r})
"""
UNSTABLE = """
import threading
import mujoco, numpy as np
from metarl.envs import mujoco_log
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.walkers_settings import HopperParametersSettings

env = BatchedEnv(make_family(HopperParametersSettings()), 2, 2, threads=2)
for field, value in (("qvel", np.inf), ("qpos", np.nan), ("qvel", 1e12)):
    env.reset([np.random.default_rng(0)] * 2)
    getattr(env.simulation.batch, field)[1:3, 3] = value
    env.step(np.zeros((2, 2, 3)))
print(env.num_faults)
model = env.family.compile(env.family.neutral())

def warn():
    data = mujoco.MjData(model)
    data.qpos[:] = np.nan
    mujoco.mj_checkPos(model, data)

with mujoco_log.silent():
    with mujoco_log.silent():
        pass
    hold, held = threading.Event(), threading.Event()
    def other():
        with mujoco_log.silent():
            held.set()
            hold.wait()
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    held.wait()
    warn()
warn()  # the other thread is in its block
hold.set()
thread.join()
{after}
"""


@pytest.mark.parametrize("warns", [False, True])
def test_unstable_simulations_are_counted_and_not_printed(warns, tmp_path):
    """With the log as it was before and afterwards, once the last of all threads has stepped."""
    script = UNSTABLE.format(after="warn()" if warns else "")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "6"), done.stderr
    printed = done.stdout + done.stderr
    assert printed.count("WARNING") == warns and (tmp_path / "MUJOCO_LOG.TXT").exists() == warns


@pytest.mark.parametrize("read", [load_spec, geometric_spec], ids=lambda f: f.__name__)
def test_a_model_with_a_total_mass_is_compiled_without_a_warning(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = read(str(CHEETAH))
        assert spec.compiler.settotalmass == -1
        assert spec.compile().body_subtreemass[0] == pytest.approx(14.0)


def test_the_neutral_masses_are_those_that_the_compiler_makes_of_a_total_mass():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mujoco.MjSpec.from_file(str(CHEETAH)).compile()
    ours = compile_neutral(mujoco.MjSpec.from_file(str(CHEETAH)))
    for name in ("body_mass", "body_inertia", "body_invweight0", "dof_invweight0"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize("model", ["file", "function"])
def test_an_own_robot_with_a_total_mass_is_taken_up_pictured_and_filmed_without_a_warning(model, tmp_path):
    (tmp_path / "robot.py").write_text(FUNCTION)
    (tmp_path / "family.yaml").write_text(FAMILY)
    settings = RobotSettings(
        str(CHEETAH) if model == "file" else f"{tmp_path / 'robot.py'}:cheetah", str(tmp_path / "family.yaml")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_robot(settings.model, settings.file)
        family = make_family(settings)
        task = family.task({"m": 2.0})
        assert family.compile(family.neutral()).body_subtreemass[0] == pytest.approx(14.0)
        assert family.picture(task).compile().nbody == family.compile(task).nbody
