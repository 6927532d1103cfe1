"""The command line: what it understands, and how it says no."""

import dataclasses
import itertools
import re
import subprocess
import sys

import pytest

from metarl.agents.registry import AGENTS, PAPERS
from metarl.cli import app as cli
from metarl.cli import train as train_command
from metarl.cli.arguments import Arguments
from metarl.cli.render import RenderCommand
from metarl.config import RunConfig, preset
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.errors import LONGEST, RunError, UsageError
from metarl.training import loop as training
from tests.envs.own_robot.families import arm, declared

HEAVY = ("torch", "mujoco", "wandb", "matplotlib", "stable_baselines3")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["evaluate", "-h"],
        ["render", "-h"],
        *([command, "--help"] for command in ("train", "families", "identify", "adapt", "export", "watch", "launch")),
    ],
)
def test_help_imports_nothing_heavy(arguments):
    """What makes it answer at once; how long it takes is the benchmark's."""
    script = (
        f"import sys; from metarl.cli.app import main; status = main({arguments!r});"
        f"sys.exit(status or ' '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: metarl")


def test_help_documents_every_setting_of_the_chosen_agent_and_family(capsys):
    assert cli.main(["train", "--agent", "rl2", "--family=half_cheetah_mass", "--help"]) == 0
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    config = preset("rl2", "half_cheetah_mass")
    for section in dataclasses.fields(config):
        for setting in dataclasses.fields(getattr(config, section.name)):
            assert f"--{section.name}.{setting.name.replace('_', '-')} " in text
    assert "Width of the memory, and of its features." in text
    assert "--runs-dir DIR" in text


@pytest.mark.parametrize("agent", ["maml", "rl2", "pearl"])
@pytest.mark.parametrize("columns", ["80", "100"])
def test_help_breaks_texts_at_the_terminals_width_alone(agent, columns, capsys, monkeypatch):
    """A line that is not the last of a text has no room for the next word."""
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["train", "--agent", agent, "--help"]) == 0
    lines = [line.strip("│|").rstrip() for line in capsys.readouterr().out.splitlines()]
    indent, most = " " * 7, int(columns) - 4
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if a.startswith(indent) and b.startswith(indent)]
    assert len(pairs) > 40
    assert [a for a, b in pairs if len(a) + 1 + len(b.split()[0]) <= most] == []


@pytest.mark.parametrize(
    "spelling",
    [
        ["--agent.inner-lr", "0.05"],
        ["--agent.inner_lr", "0.05"],
        ["--agent.inner-lr=0.05"],
        ["--agent.inner_lr=5e-2"],
        ["agent.inner_lr=0.05"],
    ],
)
def test_an_override_is_understood_however_it_is_written(spelling):
    config, _ = train_command.parse(spelling)
    default = preset()
    assert config == dataclasses.replace(default, agent=dataclasses.replace(default.agent, inner_lr=0.05))


def test_overrides_of_every_kind_in_any_order(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("agent: {name: maml, inner_lr: 0.3}\nfamily: {name: point_goal}\ntraining: {tasks: 7}\n")
    config, plain = train_command.parse(
        "agent.first_order=true --training.envs-per-task 3 --agent.hidden-sizes 32 16 --name x "
        f"--agent.outer trpo --config {file} evaluation.seeds=4,5 --evaluation.explore false "
        "tracking.group=-g- --agent.bootstrap-truncation training.iterations=1e3".split()
    )
    assert plain == {"name": "x", "config": str(file)}
    assert config.agent.first_order and config.agent.bootstrap_truncation and not config.evaluation.explore
    assert config.agent.hidden_sizes == (32, 16)
    assert (config.agent.outer, config.agent.inner_lr) == ("trpo", 0.3)
    assert (config.training.tasks, config.training.envs_per_task, config.training.iterations) == (7, 3, 1000)
    assert (config.evaluation.seeds, config.tracking.group) == ((4, 5), "-g-")


def test_the_default_is_the_main_job():
    assert train_command.parse([])[0] == preset("maml", "half_cheetah_velocity")


MISTAKES = {
    "trian": "unknown command 'trian'; did you mean 'train'?",
    "train --agent mam": "unknown agent 'mam'; did you mean 'maml'?",
    "train --family=half_cheeta_mass": "unknown family 'half_cheeta_mass'; did you mean 'half_cheetah_mass'?",
    "train --agent": "--agent needs a value",
    "train --name=": "--name needs a value",
    "train --agent.iner-lr 3": "unknown option --agent.iner-lr; did you mean '--agent.inner-lr'?",
    "train agent.iner_lr=3": "unknown option --agent.iner-lr; did you mean '--agent.inner-lr'?",
    "train --rusn-dir x": "unknown option --rusn-dir; did you mean '--runs-dir'?",
    "train --agent.inner-lr fast": "--agent.inner-lr is 'fast', text; it must be a finite number",
    "train --agent.inner-lr": "--agent.inner-lr needs a value",
    "train --agent.inner-lr=": "--agent.inner-lr is '', text",
    "train --training.tasks 2.5": "--training.tasks is 2.5, a number; it must be a whole number",
    "train --training.tasks 2 --training.tasks 3": "--training.tasks is given twice",
    "train agent.first_order=perhaps": "--agent.first-order is 'perhaps', text; it must be true or false",
    "train agent.outer=prompt": "--agent.outer is 'prompt'; did you mean 'promp'?",
    "train agent.hidden_sizes=64,wide": "--agent.hidden-sizes[1] is 'wide', text",
    "train --shots 3": "unknown option --shots; evaluation has it: --evaluation.adaptations",
    "train --itterations 3": "unknown option --itterations; did you mean '--training.iterations'?",
    "train family.inner_lr=3": "unknown option --family.inner-lr; agent has it: --agent.inner-lr",
    "train --agent rl2 agent.inner_lr=3": "unknown option --agent.inner-lr; it is a setting of agent maml",
    "train --verbose yes": "unknown option --verbose; metarl train --help lists the options",
    f"train --name {'x' * 300}": "--name has 300 bytes; give one of at most 200",
    "train --name ../x": "--name is '../x'; give the name of one folder, without a slash, and the folder of all runs",
    "train --config .": ". is a folder, and no config file; give a YAML file",
    "train maml": "metarl train takes options only, got 'maml'; overrides look like a.b=c",
    "train --config absent.yaml": "no config file absent.yaml",
    "train --config a.yaml --agent maml": "--config already says what --agent says; give one of the two",
    "train --resume a --config b.yaml": "--resume already says what --config says",
    "train --resume absent": "no run folder absent",
    "train training.tasks=0": "training.tasks is 0; it must be at least 1",
    "train training.iterations=-1": "training.iterations is -1; it must be at least 1",
    "train family.horizon=0": "family.horizon is 0; it must be at least 1",
    "train family.velocity_low=5": "family: the range (5, 2) is reversed or empty; give low < high",
    "train --family half_cheetah_mass family.mass_exponent=-1": "family.mass_exponent is -1; it must be greater than 0",
    "train --family half_cheetah_direction evaluation.split=ood": "evaluation.split: family 'half_cheetah_direction'",
    "train training.device=cuda": "torch sees no CUDA device; set training.device to auto or cpu",
    "evaluate": "metarl evaluate takes the folder of a run",
    "evaluate a b": "no run folder a;",
    "evaluate absent": "no run folder absent",
    "evaluate a --shots 3 evaluation.adaptations=2": "--shots and evaluation.adaptations are the same setting",
    "families half_cheetah": "unknown family 'half_cheetah'; did you mean 'half_cheetah_mass'?",
    "families --agent maml": "unknown option --agent; metarl families takes names only",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_that_names_thing_and_remedy(line, capsys, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    output, message = capsys.readouterr()
    assert MISTAKES[line] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert output == ""
    assert list(tmp_path.iterdir()) == []  # no half-made run is left behind


@pytest.mark.parametrize(
    ("types", "hint"),
    [
        ({"shot": int, "seed": int}, "did you mean '--shot'?"),
        ({"adaptations": int, "seed": int}, "did you mean '--adaptations'?"),
        ({"seed": int}, "valid: --seed"),
    ],
)
def test_the_short_names_of_evaluate_are_understood_elsewhere(types, hint):
    with pytest.raises(UsageError, match=f"unknown option --shots; {re.escape(hint)}"):
        Arguments.split(["--shots", "3"]).parse(RenderCommand(), types, (), "metarl render")


def test_agents_are_listed_with_the_papers_that_are_settings_of_one(capsys):
    assert cli.main(["agents"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert named == [*AGENTS, *PAPERS] and max(map(len, lines)) < 120
    assert any("maml with agent.adapted=context agent.context_parameters=50" in line for line in lines)
    for name, paper in PAPERS.items():
        assert train_command.parse(["--agent", name, "--family", "ant_goal"])[0].agent_name == paper.agent
    assert cli.main(["agents", "maml"]) == 2 and "takes no arguments, got maml" in capsys.readouterr().err


def test_help_says_at_its_head_which_method_a_name_stands_for(capsys):
    heads = []
    for name in ("cavia", "snail", "maml"):
        assert cli.main(["train", "--agent", name, "--help"]) == 0
        heads.append(" ".join(re.sub("[╭─]", " ", capsys.readouterr().out).split()).partition(" options ")[0])
    assert f"cavia: {PAPERS['cavia'].words}" in heads[0] and "snail: SNAIL" in heads[1]
    assert heads[2].endswith("then adapt it to held-out tasks.")


def test_a_file_that_names_a_paper_as_agent_is_told_what_to_write(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("agent: {name: anil}\nfamily: {name: point_goal}\n")
    assert cli.main(["train", "--config", str(tmp_path / "a.yaml")]) == 2
    assert "write agent: {name: maml, adapted: [head]}" in capsys.readouterr().err


def test_every_family_is_described(capsys):
    assert cli.main(["families"]) == 0
    text = capsys.readouterr().out
    for name, settings in FAMILY_SETTINGS.items():
        assert f"\n{name} " in text
        for setting in dataclasses.fields(settings):
            assert f"--family.{setting.name.replace('_', '-')}" in text
    assert "U(0, 2)" in text and "m/s" in text and "{-1, 1}" in text
    assert cli.main(["families", "point_goal"]) == 0
    assert "half_cheetah" not in capsys.readouterr().out


def failing(error: BaseException):
    def train(*_, **__):
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RunError("cannot write /x: No space left on device"), 1, "error: cannot write /x: No space left on device"),
        (OSError(28, "No space left on device", "/x/y"), 1, "error: /x/y: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_fault_at_run_time_is_one_line(error, status, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", failing(error))
    assert cli.main(["train", "--name", "r"]) == status
    assert capsys.readouterr().err == message + "\n"
    assert not (tmp_path / "runs/r/error.log").exists()


def test_a_reward_that_is_no_number_is_a_fault_of_the_run(tmp_path, monkeypatch, capsys):
    from metarl.envs.robots import point_goal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(point_goal, "distance", lambda state: state.qpos[:, 0] * float("nan"))
    assert cli.main(["train", "--family", "point_goal", "tracking.wandb=disabled", "training.threads=1"]) == 1
    message = capsys.readouterr().err
    assert re.match(r"error: reward term '\w+' of family 'point_goal' is nan at step 1 of task", message)
    assert message.count("\n") == 1


def test_the_unexpected_leaves_its_traceback_in_the_run_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", failing(KeyError("theta")))
    assert cli.main(["train", "--name", "r"]) == 1
    message = capsys.readouterr().err
    assert message == "error: unexpected KeyError: 'theta'; the traceback is in runs/r/error.log\n"
    assert "in train" in (tmp_path / "runs/r/error.log").read_text()


def test_an_existing_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/r").mkdir(parents=True)
    assert cli.main(["train", "--name", "r"]) == 2
    assert "runs/r exists and is not a run; move it away, or choose another --name" in capsys.readouterr().err
    for name, what in (("sweep.json", "a sweep"), ("study.json", "a headroom study")):
        (tmp_path / "runs/r" / name).touch()
        assert cli.main(["train", "--name", "r"]) == 2
        said = capsys.readouterr().err
        assert f"runs/r exists and is the folder of {what}; choose another --name" in said
        (tmp_path / "runs/r" / name).unlink()
    (tmp_path / "runs/r/config.yaml").touch()
    assert cli.main(["train", "--name", "r"]) == 2
    assert "runs/r exists; resume it with metarl train --resume runs/r, or" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert cli.main(["train", "--runs-dir", "file/runs", "--name", "r"]) == 2
    assert "error: cannot make file/runs/r: " in capsys.readouterr().err


def test_the_module_and_the_version(metarl):
    done = metarl("--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout), done.stderr


def test_the_python_api_is_lazy_and_complete():
    script = f"import sys, metarl; assert not sys.modules.keys() & {HEAVY!r}; print(metarl.RunConfig())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == str(RunConfig()), done.stderr
    import metarl

    for name in metarl.__all__:
        assert getattr(metarl, name) is not None
    with pytest.raises(AttributeError, match="module 'metarl' has no attribute 'trian'"):
        metarl.trian  # noqa: B018


@pytest.mark.parametrize(
    ("argument", "said"),
    [("\x1b[2Jx", r"'\x1b[2Jx', has '\x1b'"), ("a\0b", r"'a\x00b', has '\x00'"), ("\udcff", "is not valid UTF-8")],
)
@pytest.mark.parametrize("command", [["train", "--name"], ["evaluate"], ["render", "--family"], []])
def test_an_argument_that_a_terminal_would_obey_is_refused(command, argument, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, argument]) == 2
    error = capsys.readouterr().err
    assert f"error: argument {len(command) + 1}, " in error and said in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", "x" * 5000],
        ["x" * 100_000],
        ["train", "--" + "x" * 5000],
        ["train", "agent.inner_lr=" + "9" * 100_000],
        ["train", "training.seed=" + "[" * 100_000],
        ["train", "agent.hidden_sizes=" + "1," * 100_000 + "x"],
        ["train", "--family", "y" * 5000],
        ["render", "--family", "point_goal", "--task", "[" * 100_000],
        ["evaluate", *["z"] * 1000],
        ["sweep", "s" * 5000],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_a_message_is_one_line_of_bounded_length(arguments, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and len(error) <= LONGEST + 1 and error.startswith("error: ")


@pytest.mark.parametrize(
    ("agent", "setting"),
    [
        ("maml", "hidden_sizes=1000000000"),
        ("maml", "hidden_sizes=100000,100000"),
        ("rl2", "hidden_size=100000"),
        ("ppo", "hidden_sizes=1000000000,1"),
    ],
)
def test_layers_that_no_memory_holds_are_one_line(agent, setting, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = f"train --agent {agent} --family point_goal agent.{setting} tracking.wandb=disabled"
    assert cli.main(command.split()) == 2
    error = capsys.readouterr().err
    assert re.match(r"error: agent\.hidden_sizes? is .*, which makes .* weights; it must make at most 1e\+09\n$", error)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        ("--agent rl2 --family point_goal", False),
        ("--agent lstm --family point_goal", False),  # a paper's: the preset of its agent
        ("--agent varibad --family ant_goal", True),
        ("--agent distilled --robot {model} --family {file}", False),
        ("--agent prototype --robot {model} --family {file}", True),
        ("--config {config}", False),
    ],
)
def test_training_says_which_settings_nobody_chose(line, noted, tmp_path):
    model = arm(tmp_path, '<motor name="lift" joint="lift" ctrlrange="-1 1"/>')
    paths = {"model": model, "file": declared(tmp_path), "config": tmp_path / "c.yaml"}
    (tmp_path / "c.yaml").write_text("agent: {name: varibad}\nfamily: {name: ant_goal}\n")
    teacher = ["agent.teacher=runs/oracle"] if "distilled" in line else []
    note = train_command.untuned(*train_command.parse([*line.format(**paths).split(), *teacher]))
    assert bool(note) == noted
    if noted:
        assert "has no preset for" in note and "training.envs_per_task=20, training.adaptations=1" in note
