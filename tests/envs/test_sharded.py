"""Tasks whose models differ in layout, in one env and one trial."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from metarl.agents.learning import MetaLearner
from metarl.agents.registry import AGENT_SETTINGS, AGENTS, make_agent
from metarl.envs.batch import BatchedEnv
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, Law, Parameter, Uniform
from metarl.envs.reveal import privileged_names
from metarl.envs.sharded import ShardedEnv
from metarl.envs.state import State
from metarl.envs.terms import ObservationTerm, RewardTerm, elements
from metarl.runs.trial import run_trial, stream, streams
from tests.small_agents import small_agent

LONGEST = 3


def chain(links: float) -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    body = spec.worldbody
    for i in range(int(links)):
        body = body.add_body(name=f"link{i}", pos=(0, 0, -0.3 * (i > 0)))
        body.add_joint(name=f"hinge{i}", axis=(0, 1, 0), damping=[0.1, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=(0.02, 0, 0), fromto=(0, 0, 0, 0, 0, -0.3), contype=0)
        spec.add_actuator(name=f"motor{i}", target=f"hinge{i}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    return spec


def scale_gravity(spec: mujoco.MjSpec, factor: float) -> None:
    spec.option.gravity = spec.option.gravity * factor


def angles(state: State) -> np.ndarray:
    padded = np.zeros((len(state.qpos), LONGEST))
    padded[:, : state.qpos.shape[1]] = state.qpos
    return padded


CHAINS = TaskFamily(
    name="chains",
    description="pendulums of 1 to 3 links",
    base=chain,
    parameters=(
        Parameter("links", "1", Choice((1.0, 2.0, 3.0)), Law("number of links"), neutral=2.0),
        Parameter("gravity", "1", Uniform(0.5, 1.5), Law("factor", scale_gravity), neutral=1.0),
    ),
    observation={"angles": ObservationTerm(angles, elements("rad", "abc"))},
    rewards={"angle": RewardTerm(lambda state: np.abs(angles(state)).sum(1), weight=-1.0)},
    reset=lambda model, rng, n: (rng.uniform(-1, 1, (n, model.nq)), np.zeros((n, model.nv))),
    action_low=np.full(LONGEST, -0.1),
    action_high=np.full(LONGEST, 0.1),
    horizon=12,
    frame_skip=5,
    control=read_signals(chain(LONGEST).compile(), "force"),
    layout=("links",),
)
TASKS = [CHAINS.task({"links": links, "gravity": g}) for links, g in ((3, 0.6), (1, 0.7), (2, 0.8), (3, 0.9), (1, 1.2))]


def test_tasks_of_every_layout_equal_their_own_model_stepped_alone():
    env = ShardedEnv(CHAINS, 5, 2, threads=1)
    env.set_tasks(TASKS)
    assert [index.tolist() for index in env.indices] == [[0, 3], [1, 4], [2]] and env.tasks == TASKS
    first = env.reset([np.random.default_rng(m) for m in range(5)])
    actions = np.random.default_rng(9).uniform(-0.2, 0.2, (CHAINS.horizon, 5, 2, LONGEST))
    steps = [env.step(a) for a in actions]
    assert not env.active.any() and steps[-1].truncated.all()
    for m, task in enumerate(TASKS):
        spec = chain(task.values["links"])
        scale_gravity(spec, task.values["gravity"])
        model = spec.compile()
        starts, _ = CHAINS.reset(model, np.random.default_rng(m), 2)
        for n in range(2):
            data = mujoco.MjData(model)
            data.qpos[:] = starts[n]
            np.testing.assert_array_equal(first[m, n, : model.nq], data.qpos.astype(np.float32))
            mujoco.mj_forward(model, data)
            total = 0.0
            for t in range(CHAINS.horizon):
                data.ctrl[:] = actions[t, m, n, : model.nu].clip(-0.1, 0.1)
                mujoco.mj_step(model, data, nstep=5)
                np.testing.assert_array_equal(steps[t].observations[m, n, : model.nq], data.qpos.astype(np.float32))
                assert not steps[t].observations[m, n, model.nq :].any()
                total -= np.abs(data.qpos).sum()
            assert env.term_sums["angle"][m, n] == pytest.approx(total)


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_a_trial_over_layouts_is_in_the_order_of_its_tasks(name: str):
    sizes, generator = (LONGEST, LONGEST), torch.Generator().manual_seed(0)
    names, informed = privileged_names(CHAINS), AGENTS[name].informed
    agent = make_agent(small_agent(name), *sizes, generator, torch.device("cpu"), privileged=names)
    env = ShardedEnv(CHAINS, 5, 2, threads=2, at_once=2, telling=informed)
    env.set_tasks(TASKS)
    together = run_trial(env, agent, streams(1, "test", 0, 5), adaptations=1)
    for m in range(5):
        alone_env = ShardedEnv(CHAINS, 1, 2, threads=1, telling=informed)
        alone_env.set_tasks(TASKS[m : m + 1])
        alone = run_trial(alone_env, agent, streams(1, "test", 0, 5)[m : m + 1], adaptations=1)
        for k in range(2):
            actions = together.trial.rollouts[k].actions[:, m], alone.trial.rollouts[k].actions[:, 0]
            torch.testing.assert_close(*actions, rtol=1e-4, atol=1e-4)
            terms = (result.reward_terms[k]["angle"] for result in (together, alone))
            np.testing.assert_allclose(next(terms)[m], next(terms)[0], rtol=1e-4)
        for field in ("parameters", "hidden"):
            if hasattr(together.belief, field):
                ours, its = (getattr(result.belief, field) for result in (together, alone))
                torch.testing.assert_close(ours[m], its[0], rtol=1e-4, atol=1e-4)
    if isinstance(agent, MetaLearner) and type(agent).trainer is MetaLearner.trainer:  # it learns from the trial alone
        metrics = agent.meta_update(together.trial, torch.Generator().manual_seed(0))
        assert all(np.isfinite(v) for v in metrics.values())


def test_layouts_are_regrouped_when_other_tasks_come_and_faults_stay_counted():
    env = ShardedEnv(CHAINS, 3, 1, threads=1)
    env.set_tasks([CHAINS.task({"links": links}) for links in (1, 2, 2)])
    shards = env.shards
    env.set_tasks([CHAINS.task({"links": links}) for links in (1, 2, 2)])
    assert env.shards is shards
    env.reset(streams(1, "test", 0, 3))
    env.shards[0].simulation.batch.qvel[0] = np.inf
    assert env.step(np.zeros((3, 1, LONGEST))).faulted.ravel().tolist() == [True, False, False]
    env.shards[0].simulation.overflows = lambda: {"NEFC": 2}
    env.set_tasks(CHAINS.sample(3, stream(1, "test")))
    assert env.num_faults == 1 and env.overflows == {"NEFC": 2}
    env.shards[0].simulation.overflows = lambda: {"NEFC": 1, "CCD": 3}
    assert env.overflows == {"NEFC": 3, "CCD": 3}


def test_a_batch_takes_tasks_of_its_layout_only():
    env = BatchedEnv(CHAINS, 1, 1, threads=1, like=TASKS[0])
    env.set_tasks([CHAINS.task({"links": 3.0, "gravity": 0.5})])
    with pytest.raises(ValueError, match=r"layout \{'links': 3.0\}, got one of \{'links': 2.0\}"):
        env.set_tasks([CHAINS.neutral()])
