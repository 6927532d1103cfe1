"""Configurations: what is read is what was written, and every mistake is named."""

import dataclasses

import pytest
import yaml

from metarl.agents.registry import AGENT_SETTINGS
from metarl.config import (
    CONFIG,
    PRESETS,
    RunConfig,
    config_from_dict,
    config_to_dict,
    dump_yaml,
    load_config,
    options,
    preset,
    read_run_config,
    recorded_config,
)
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.errors import UsageError
from metarl.options import entries_of, is_entry
from tests.sampling import sampled

PAIRS = [(agent, family) for agent in AGENT_SETTINGS for family in FAMILY_SETTINGS]
NAMES = {"agent": "name: maml, ", "family": "name: half_cheetah_velocity, "}
PRESET_FILES = sorted(PRESETS.glob("*.yaml"))


def leaves(tree, prefix=""):
    for key, value in tree.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]


@pytest.mark.parametrize(("agent", "family"), sampled(PAIRS, 9))
def test_a_dumped_config_loads_as_an_equal_one(agent, family, tmp_path):
    config = preset(agent, family)
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path) == config
    assert (config.agent_name, config.family_name) == (agent, family)
    whole = {name for name in options(config) if not is_entry(name)}  # ranges of a robot's file, which it need not set
    assert {key for key, _ in leaves(config_to_dict(config))} == {*whole, "agent.name", "family.name"}


@pytest.mark.parametrize("path", PRESET_FILES, ids=lambda path: path.stem)
def test_a_preset_is_named_by_what_it_is_and_holds_only_what_differs_from_the_defaults(path):
    config = load_config(path)
    assert path.stem == f"{config.agent_name}_{config.family_name}"
    assert preset(config.agent_name, config.family_name) == config
    defaults = RunConfig(agent=type(config.agent)(), family=type(config.family)())
    default = dict(leaves(config_to_dict(defaults)))
    written = dict(leaves(yaml.safe_load(path.read_text())))
    same = [key for key, value in written.items() if value == default[key] and not key.endswith(".name")]
    assert same == []


def test_what_a_file_does_not_name_has_its_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training:\n  seed: 7\n")
    default = RunConfig()
    assert load_config(path) == dataclasses.replace(default, training=dataclasses.replace(default.training, seed=7))
    path.write_text("")
    assert load_config(path) == default


@pytest.mark.parametrize("family", ["quadruped", "quadruped_terrain"])
def test_a_saved_config_that_is_older_than_a_setting_has_what_was_run_before_it(family, tmp_path):
    saved = config_to_dict(preset("rl2", family))
    assert saved["family"].pop("physics") == "fast"
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG).write_text(yaml.safe_dump(saved))
    assert read_run_config(run).family.physics == "exact"
    assert load_config(run / CONFIG).family.physics == "exact"  # to repeat it: metarl train --config
    assert recorded_config({"family": saved["family"]}).family.physics == "exact"
    del saved["family"]["slope"]  # older still, and no longer to be told from what a person wrote
    (run / CONFIG).write_text(yaml.safe_dump(saved))
    assert read_run_config(run).family.physics == "exact"
    assert load_config(run / CONFIG).family.physics == "fast"
    saved["family"]["physics"] = "fast"
    (run / CONFIG).write_text(yaml.safe_dump(saved))
    assert read_run_config(run).family.physics == "fast"


def test_yaml_numbers_are_read_as_a_person_means_them():
    config = config_from_dict(
        yaml.safe_load(
            """
            agent: {name: maml, inner_lr: 1e5, promp_lr: 1, hidden_sizes: [3, 1e2]}
            evaluation: {seeds: [4]}
            """
        )
    )
    assert config.agent.inner_lr == 1e5 and isinstance(config.agent.promp_lr, float)
    assert config.agent.hidden_sizes == (3, 100)
    assert config.evaluation.seeds == (4,)


MISTAKES = {
    "agent: {name: mam}": "unknown agent 'mam'; did you mean 'maml'?",
    "agent: {name: [maml]}": "unknown agent ['maml']",
    "agent: {inner_lr: 0.1}": "agent has no name; add `name:` and one of maml, rl2",
    "family: {name: half_cheetah_velocty}": "did you mean 'half_cheetah_velocity'?",
    "trainin: {}": "unknown key 'trainin'; did you mean 'training'?",
    "agent: {name: maml, iner_lr: 0.1}": "unknown key 'agent.iner_lr'; did you mean 'agent.inner_lr'?",
    "agent: {name: rl2, inner_lr: 0.1}": "unknown key 'agent.inner_lr'",
    "training: {tasks: many}": "training.tasks is 'many', text; it must be a whole number",
    "training: {tasks: 3.5}": "training.tasks is 3.5, a number; it must be a whole number",
    "training: {tasks: yes}": "training.tasks is True, true or false; it must be a whole number",
    "training: {tasks: }": "training.tasks is None, nothing; it must be a whole number",
    "training: {tasks: [1]}": "training.tasks is [1], a list; it must be a whole number",
    "training: 3": "training is 3, a whole number; it must be a mapping",
    "- 3": "the config is [3], a list; it must be a mapping",
    "agent: {name: maml, inner_lr: .nan}": "agent.inner_lr is nan, a number; it must be a finite number",
    "agent: {name: maml, inner_lr: 1e999}": "it must be a finite number",
    "agent: {name: maml, first_order: 1}": "agent.first_order is 1, a whole number; it must be true or false",
    "agent: {name: maml, hidden_sizes: 64}": "agent.hidden_sizes is 64, a whole number; it must be a list",
    "agent: {name: maml, hidden_sizes: [64, wide]}": "agent.hidden_sizes[1] is 'wide', text",
    "agent: {name: maml, outer: prompt}": "agent.outer is 'prompt'; did you mean 'promp'? Valid: promp, trpo",
    "tracking: {project: 3}": "tracking.project is 3, a whole number; it must be text",
    "training: {tasks: 0}": "training.tasks is 0; it must be at least 1",
    "training: {iterations: -5}": "training.iterations is -5; it must be at least 1",
    "training: {seed: -1}": "training.seed is -1; it must be at least 0",
    "evaluation: {tasks: 1}": "evaluation.tasks is 1; it must be at least 2",
    "evaluation: {seeds: []}": "evaluation.seeds is []; it must have at least one number",
    "evaluation: {seeds: [1, 1]}": "evaluation.seeds is [1, 1]; give each seed once",
    "tracking: {project: ''}": "tracking.project is empty",
    "tracking: {project: a/b c}": "tracking.project is 'a/b c'; W&B takes at most 128 characters, and none of / ",
    "training: {tasks: 1, tasks: 2}": "key 'tasks' is given twice",
    "training: [": "is not valid YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_file_is_named_with_file_key_and_remedy(text, tmp_path):
    path = tmp_path / "mistaken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert MISTAKES[text] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(UsageError, match="no config file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="is a folder, and no config file; give a YAML file"):
        load_config(tmp_path)
    (tmp_path / CONFIG).write_text("")
    with pytest.raises(UsageError, match=f"is the folder of a run; did you mean its configuration, .*{CONFIG}?"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="binary.yaml"):
        load_config(tmp_path / "binary.yaml")


def test_a_run_that_is_none_is_named_with_the_nearest(tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(UsageError, match="is no run folder: it has no config.yaml"):
        read_run_config(tmp_path / "first")
    (tmp_path / "first" / "config.yaml").write_text("")
    assert read_run_config(tmp_path / "first") == RunConfig()
    with pytest.raises(UsageError, match="did you mean 'first'"):
        read_run_config(tmp_path / "frist")


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("training", {"tasks": "many"}, "training.tasks is 'many', text; it must be a whole number"),
        ("training", {"tasks": "40"}, "training.tasks is '40'; write 40"),
        ("agent", {"outer": "ppo"}, "agent.outer is 'ppo'"),
        ("agent", {"hidden_sizes": [8]}, "agent.hidden_sizes is [8]; write (8,)"),
        ("family", {"horizon": 1.5}, "family.horizon is 1.5, a number; it must be a whole number"),
    ],
)
def test_a_wrong_type_given_in_python_is_named(section, change, message):
    config = RunConfig()
    config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **change)})
    with pytest.raises(UsageError) as caught:
        config.validate()
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["training.seed", "training.tasks", "agent.promp_epochs", "family.horizon"])
@pytest.mark.parametrize("value", ["1" + "0" * 30, "1e30", "'1e300'", "9223372036854775808", "-1" + "0" * 5000])
def test_whole_numbers_beyond_64_bits_are_refused(name, value, tmp_path):
    section, setting = name.split(".")
    path = tmp_path / "a.yaml"
    path.write_text(f"{section}: {{{NAMES.get(section, '')}{setting}: {value}}}")
    with pytest.raises(UsageError, match="64 bits|no int") as caught:
        load_config(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {threads: 100000}", "training.threads is 100000; it must be at most 1024"),
        ("evaluation: {tasks: 4000000000000000000}", "evaluation.tasks is .*; it must be at most 1000000"),
        ("training: {iterations: 4000000000000000000}", "training.iterations is .*; it must be at most 1000000000"),
        (
            "agent: {name: maml, hidden_sizes: [4000000000000000000]}",
            r"hidden_sizes\[0\] is .* at most 1000000000",
        ),
    ],
)
def test_counts_that_no_machine_holds_are_refused(text, message, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / "a.yaml")


def test_a_seed_may_be_any_of_64_bits(tmp_path):
    (tmp_path / "a.yaml").write_text(f"training: {{seed: {2**63 - 1}}}\nevaluation: {{seeds: [{2**63 - 1}]}}")
    assert load_config(tmp_path / "a.yaml").training.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ("(1, 2)", ["1", "2"]),
        ("[(a|b)_c, d]", ["(a|b)_c", "d"]),
        ("(FR|FL)_calf", ["(FR|FL)_calf"]),
        (".*_(calf|hip)", [".*_(calf|hip)"]),
        ("[FR]R_.*", ["[FR]R_.*"]),
        ("(a)|(b)", ["(a)|(b)"]),
        ("[ab][cd]", ["[ab][cd]"]),
        (".{3,5}", [".{3,5}"]),
        ("([a,b], c)", ["[a,b]", "c"]),
        ("(", ["("]),
        ("a)", ["a)"]),
        ("", [""]),
        ("[]", []),
        ("( )", []),
    ],
)
def test_a_list_that_is_typed_as_one_text_keeps_the_brackets_of_its_entries(text: str, entries: list[str]):
    assert entries_of(text, "--x") == entries


@pytest.mark.parametrize("text", [",", " , ,"])
def test_commas_alone_are_no_list(text: str):
    with pytest.raises(UsageError, match="--x is .*, a list without an entry"):
        entries_of(text, "--x")
