"""Names that are almost right: what was probably meant is said, and nothing where nothing was."""

import pytest

from metarl.agents.registry import AGENT_SETTINGS
from metarl.config import config_from_dict, options, preset
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.errors import UsageError, nearest

COMMANDS = ("train", "evaluate", "report", "adapt", "export", "watch", "render", "families", "robot", "sweep")
SETTINGS = tuple(options(preset()))
MEANT = {
    ("mamll", tuple(AGENT_SETTINGS)): "maml",
    ("pop", tuple(AGENT_SETTINGS)): "ppo",
    ("recurent_ppo", tuple(AGENT_SETTINGS)): "recurrent_ppo",
    ("half_cheeta_mass", tuple(FAMILY_SETTINGS)): "half_cheetah_mass",
    ("half-cheetah-mass", tuple(FAMILY_SETTINGS)): "half_cheetah_mass",
    ("quadrupde", tuple(FAMILY_SETTINGS)): "quadruped",
    ("hopper", tuple(FAMILY_SETTINGS)): "hopper_parameters",
    ("trian", COMMANDS): "train",
    ("eval", COMMANDS): "evaluate",
    ("agent.inner_lrr", SETTINGS): "agent.inner_lr",
    ("inner_lrr", SETTINGS): "agent.inner_lr",
    ("agent.lr", SETTINGS): "agent.inner_lr",
    ("training.itterations", SETTINGS): "training.iterations",
    ("--itterations", SETTINGS): "training.iterations",
    ("trainig.iterations", SETTINGS): "training.iterations",
    ("training.seeds", SETTINGS): "training.seed",
    ("ppo_mass1", ("ppo_mass", "oracle_mass", "v1.best")): "ppo_mass",
}
UNRELATED = (
    ("dreamer", tuple(AGENT_SETTINGS)),
    ("trpo", tuple(AGENT_SETTINGS)),
    ("banana", tuple(FAMILY_SETTINGS)),
    ("manipulator", tuple(FAMILY_SETTINGS)),
    ("list", COMMANDS),
    ("test", COMMANDS),
    ("run", COMMANDS),
    ("learning_rate", SETTINGS),
    ("agent.gamma", SETTINGS),
    ("batch_size", SETTINGS),
    ("training.steps", SETTINGS),
    ("family.speed", SETTINGS),
    ("verbose", SETTINGS),
    ("latest", ("ppo_mass", "oracle_mass", "v1.best")),
)


@pytest.mark.parametrize(("name", "valid"), MEANT, ids=lambda value: value if isinstance(value, str) else "")
def test_a_typo_is_understood(name, valid):
    hint = nearest(name, valid)
    assert hint.startswith(f"; did you mean {MEANT[name, valid]!r}?")
    assert ("Valid: " in hint) == (len(valid) <= 8)


@pytest.mark.parametrize(("name", "valid"), UNRELATED, ids=lambda value: value if isinstance(value, str) else "")
def test_of_an_unrelated_word_nothing_is_guessed(name, valid):
    hint = nearest(name, valid)
    assert hint.startswith("; valid: ") and len(hint) < 1000
    assert nearest(name, valid, "; so it is") == "; so it is"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("family.inner_lr", "; agent has it: agent.inner_lr"),
        ("evaluation.iterations", "; training has it: training.iterations"),
        ("--seeds", "; evaluation has it: evaluation.seeds"),
        ("adaptations", "; training and evaluation have it: training.adaptations, evaluation.adaptations"),
    ],
)
def test_a_setting_of_another_section_is_found_there(name, hint):
    assert nearest(name, SETTINGS) == hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"iterations": 3}, "unknown key 'iterations'; training has it: training.iterations"),
        ({"agent": {"name": "ppo"}, "family": {"name": "point_goal", "lr": 1}}, "'family.lr'; agent has it: agent.lr"),
        ({"agent": {"name": "rl2", "inner_lr": 1}}, "'agent.inner_lr'; it is a setting of agent maml"),
        ({"family": {"name": "point_goal", "mass_exponent": 1}}, "it is a setting of family half_cheetah_mass"),
    ],
)
def test_a_file_is_told_where_a_setting_is(data, message):
    with pytest.raises(UsageError, match=message):
        config_from_dict(data)


def test_where_nothing_is_valid_nothing_is_listed():
    assert nearest("--env", []) == ""
