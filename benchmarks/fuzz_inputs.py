"""Inputs for the fuzzer: a corpus of nasty ones, and seeded mutations of small valid ones."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from metarl.config import PRESETS
from metarl.envs.own_robot.settings import EXAMPLE

TINY = (
    *("training.iterations=1", "training.tasks=2", "training.envs_per_task=2", "training.threads=1"),
    *("evaluation.tasks=2", "evaluation.envs_per_task=2", "evaluation.adaptations=1", "evaluation.seeds=1"),
    *("evaluation.bootstrap_samples=5", "training.distinct_tasks=0", "tracking.wandb=disabled"),
)
"""Overrides that keep whatever a mutated configuration asks for small."""
PIPE = b"PIPE"
"""Content that stands for a named pipe without a writer."""
ADAPT = ["adapt", "run", "--rollouts", "log"]


@dataclass(frozen=True)
class Case:
    """An input: a command line, and files beside the small run `run`, its logs `log` and its belief `belief.pt`."""

    kind: str
    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)


NUMBERS: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, 1e-300, 1e300, -0.0)
NUMBERS += (float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    " ",
    "a",
    "1e5",
    "1e999",
    "nan",
    "~",
    "true",
    "no",
    "2001-99-99",
    "0x",
    "1:2:3",
    "=",
    "<<",
    "..",
    "/",
    "/dev/zero",
)
TEXTS += (
    "\x1b[2J\x1b]0;x\x07",
    "\u202eabc",
    "ü" * 300,
    "x" * 5000,
    "a\nb",
    "%s%n{0}",
    "{{1}}",
    "*",
    "[",
    "-h",
    "--help",
    "$(id)",
)
TREES: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    {"name": "maml"},
    [1, "a", None],
    [[1.0, 2.0]] * 3,
)
WORDS: tuple[str, ...] = (
    "!!int abc",
    "!!float x",
    "!!bool x",
    "!!binary x",
    "!!set {a}",
    "!!python/object/apply:os.system [id]",
    "&a [*a]",
    "*a",
    "9" * 5000,
)
WORDS += (
    "[" * 2000,
    "{a: " * 2000,
    "? [1]: 2",
    "2001-99-99",
    "!!timestamp x",
    "<<: 3",
    '"\\e[2J"',
    '"\\ud800"',
    "0o8",
    "|",
    "%YAML 9.9",
)
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)


def nasty(rng: random.Random) -> Any:
    """A value that nobody means."""
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, TEXTS, TREES))))


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Plain types with one place changed: a value, a key, an entry more or less."""
    tree = copy.deepcopy(tree)
    places = [(box, key) for box in boxes(tree) for key in (list(box) if isinstance(box, dict) else range(len(box)))]
    if not places:
        return nasty(rng)
    box, key = rng.choice(places)
    deed = rng.randrange(5)
    if deed == 0:
        del box[key]
    elif deed == 1 and isinstance(box, dict):
        box[rng.choice((f"{key}x", str(key)[:-1], nasty_key(rng)))] = box.pop(key)
    elif deed == 2 and isinstance(box, list):
        box.insert(key, nasty(rng))
    elif deed == 3 and isinstance(box[key], int | float) and not isinstance(box[key], bool):
        box[key] = rng.choice((-box[key], box[key] + 1, box[key] / 2, 1 - box[key], str(box[key])))
    else:
        box[key] = nasty(rng)
    return tree


def nasty_key(rng: random.Random) -> Any:
    value = nasty(rng)
    return str(value)[:100] if isinstance(value, list | dict) else value


def boxes(tree: Any) -> list[Any]:
    """All lists and mappings in plain types."""
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return ([tree] if isinstance(tree, dict | list) else []) + [box for part in parts for box in boxes(part)]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one place changed: flipped, cut out, doubled, put in, cut off."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 4, 40, 400)))
    word = rng.choice((b"\0", b"\xff", b"\xff" * 8, b"9" * 30, b"-1", b"\x1b[2J", b"\xed\xa0\x80", rng.randbytes(4)))
    made = (
        data[:at] + word + data[at + len(word) :],
        data[:at] + data[end:],
        data[:end] + data[at:],
        data[:at] + word + data[at:],
    )
    return rng.choice((*made, data[:at]))


def mutate_text(text: str, rng: random.Random) -> str:
    """A text with a word, a line or a number changed."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    deed = rng.randrange(4)
    if deed == 0:
        del lines[at]
    elif deed == 1:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif deed == 2 and ": " in lines[at]:
        lines[at] = lines[at].split(": ")[0] + ": " + rng.choice(WORDS) + "\n"
    else:
        return mutate_bytes(text.encode(), rng).decode("utf-8", "surrogateescape")
    return "".join(lines)


def mutate_xml(text: str, rng: random.Random) -> str:
    """A model with the value of an attribute, or anything else, changed."""
    quotes = [i for i, letter in enumerate(text) if letter == '"']
    if rng.random() < 0.3 or len(quotes) < 2:
        return mutate_text(text, rng)
    at = 2 * rng.randrange(len(quotes) // 2)
    old = text[quotes[at] + 1 : quotes[at + 1]]
    value = rng.choice(
        (str(nasty(rng)), f"-{old}", f"{old} {old}", old[:-1], "0", "nan", "1e10", "-1", "1 2 3", f"{old}&#27;")
    )
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;") if rng.random() < 0.9 else value
    return text[: quotes[at] + 1] + value + text[quotes[at + 1] :]


def dump(tree: Any) -> bytes:
    """Plain types as YAML."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Valid:
    """Small valid inputs that mutations start from."""

    run: Path
    log: Path
    belief: bytes
    checkpoint: bytes


URDF = """<robot name="arm">
<link name="base"><inertial><mass value="1"/>
<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
<link name="upper"><inertial><origin xyz="0 0 0.1"/><mass value="0.5"/>
<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial>
<collision><geometry><sphere radius="0.05"/></geometry></collision></link>
<joint name="hinge" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 1 0"/>
<limit lower="-1" upper="1" effort="5" velocity="3"/></joint>
</robot>
"""
URDF_FAMILY = {
    "robot": {"actuators": {"kind": "position", "joints": ".*", "kp": 10.0, "kd": 1.0}},
    "distribution": [
        {
            "name": "upper mass",
            "quantity": "mass",
            "target": "upper",
            "operation": "scale",
            "distribution": "uniform",
            "range": [0.5, 2.0],
        }
    ],
    "reward": {"alive": 1.0},
}
SWEEP = {
    "base": {"agent": "maml", "family": "point_goal", "training.iterations": 1, "tracking.wandb": "disabled"},
    "factors": {"agent.inner_lr": [0.1, 0.2], "family.goal_range": {"low": 0.1, "high": 0.5, "levels": 2}},
    "method": "grid",
    "objective": {"measure": "gain"},
    "pruner": {"name": "median", "every": 1},
}
LINES = (
    ["train", "--family", "point_goal", "family.horizon=5", "agent.hidden_sizes=8", *TINY],
    ["evaluate", "run", "--split", "held_out", "evaluation.adaptations=1", "--no-train-gap"],
    ["render", "--family", "point_goal", "--task", '{"goal_x": 0.1}', "--seconds", "0.1", "--output", "a.gif"],
    ["adapt", "run", "--rollouts", "log", "--adaptations", "1", "--off-policy", "--output", "b.pt"],
    ["export", "run", "--checkpoint", "best", "--output", "a.txt"],
    ["families", "point_goal", "half_cheetah_mass"],
    ["robot", "check", "robot.xml", "--family", "robot.yaml"],
    ["sweep", "sweep.yaml", "--point", '{"agent.inner_lr": 0.3}', "--trials", "1"],
    ["report", "absent", "--title", "x"],
    ["watch", "absent", "--belief", "belief.pt"],
)


def config(valid: Valid, rng: random.Random) -> Case:
    preset = rng.choice(
        [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(PRESETS.glob("*_point_goal.yaml"))]
    )
    tree = {
        "training": {"seed": 1, "tasks": 2},
        "evaluation": {"seeds": [1], "split": "held_out"},
        "tracking": {"group": "a"},
        **preset,
    }
    text = (
        dump(mutate_tree(tree, rng))
        if rng.random() < 0.6
        else mutate_text(dump(tree).decode(), rng).encode("utf-8", "surrogateescape")
    )
    return Case("config", ["train", "--config", "c.yaml", "family.horizon=5", *TINY], {"c.yaml": text})


def sweep(valid: Valid, rng: random.Random) -> Case:
    text = (
        dump(mutate_tree(SWEEP, rng))
        if rng.random() < 0.6
        else mutate_text(dump(SWEEP).decode(), rng).encode("utf-8", "surrogateescape")
    )
    return Case("config", ["sweep", "s.yaml", "--report"], {"s.yaml": text})


def line(valid: Valid, rng: random.Random) -> Case:
    tokens = list(rng.choice(LINES))
    for _ in range(rng.randint(1, 2)):
        at, word = rng.randrange(len(tokens)), str(nasty(rng))
        name, _, value = tokens[at].partition("=")
        changed = (
            f"{name}={word}",
            f"{name}{word}={value}",
            word,
            mutate_text(tokens[at] or "x", rng),
            "--" + name,
            name[:-1],
        )
        deed = rng.randrange(3)
        tokens[at : at + (deed > 0)] = [rng.choice(changed)] if deed < 2 else []
        tokens = tokens or [""]
    files = {"robot.xml": model(), "robot.yaml": Path(f"{EXAMPLE}.yaml").read_bytes(), "sweep.yaml": dump(SWEEP)}
    return Case("command line", tokens, files)


def rollout(valid: Valid, rng: random.Random) -> Case:
    data = (valid.log / "shot00_episode000.npz").read_bytes()
    if rng.random() < 0.4:
        data = mutate_bytes(data, rng)
    else:
        with np.load(io.BytesIO(data)) as archive:
            fields: dict[str, Any] = dict(archive)
        name = rng.choice(list(fields))
        value = fields[name]
        changes: list[Callable[[], Any]] = [
            lambda: value[..., None],
            lambda: value.astype("S"),
            lambda: value.astype("U"),
            lambda: np.broadcast_to(value.ravel()[:1], (3, 3)),
            lambda: np.zeros(value.shape, dtype=rng.choice(["c8", "f2", "M8[s]", "i8,f4", "V8", ">f8", "?"])),
            lambda: np.full(value.shape, rng.choice([np.nan, np.inf, 1e38, -1e38, 0.0])),
            lambda: np.repeat(value, 3, axis=0) if value.ndim else value,
            lambda: np.array(nasty(rng), dtype=object),
            lambda: np.array(str(nasty(rng))),
        ]
        try:
            fields[name] = rng.choice(changes)()
        except (ValueError, TypeError):
            del fields[name]
        buffer = io.BytesIO()
        np.savez(buffer, **fields)
        data = buffer.getvalue()
    return Case(
        "rollouts", [*ADAPT, *(["--off-policy"] if rng.random() < 0.5 else [])], {"log/shot00_episode000.npz": data}
    )


def mutate_state(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint or a belief with bytes, or a value in it, changed."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    content = torch.load(io.BytesIO(data), weights_only=True)
    places = [(box, key) for box in boxes(content) for key in (list(box) if isinstance(box, dict) else range(len(box)))]
    box, key = rng.choice(places)
    value = box[key]
    if isinstance(value, torch.Tensor) and rng.random() < 0.7:
        made = (
            value[..., None],
            value.double() * torch.nan,
            value.to(torch.int8),
            value.flatten()[:1].expand(10**9),
            value.to_sparse(),
        )
        box[key] = rng.choice(made)
    else:
        box[key] = nasty(rng)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def checkpoint(valid: Valid, rng: random.Random) -> Case:
    data = mutate_state(valid.checkpoint, rng)
    if rng.random() < 0.5:
        return Case("checkpoints", [*ADAPT, "--checkpoint", "c.pt"], {"c.pt": data})
    resume = ["train", "--resume", "run", "training.iterations=3", "evaluation.bootstrap_samples=5"]
    name = "best.pt" if rng.random() < 0.2 else "iteration_000002.pt"
    return Case("checkpoints", resume, {f"run/checkpoints/{name}": data})


def belief(valid: Valid, rng: random.Random) -> Case:
    return Case("checkpoints", ["export", "run", "--belief", "b.pt"], {"b.pt": mutate_state(valid.belief, rng)})


def folder(valid: Valid, rng: random.Random) -> Case:
    """Other files of a run's folder."""
    path = rng.choice([valid.run / "config.yaml", valid.run / "metrics.jsonl", *valid.run.glob("evaluation/*.json")])
    name = f"run/{path.relative_to(valid.run)}"
    if path.suffix == ".json" and rng.random() < 0.5:
        data = json.dumps(mutate_tree(json.loads(path.read_text(encoding="utf-8")), rng)).encode()
    else:
        data = mutate_bytes(path.read_bytes(), rng)
    what = (
        ["report", "run", "--no-videos"]
        if path.suffix == ".json"
        else ["train", "--resume", "run", "training.iterations=3"]
    )
    return Case("runs", what, {name: data})


def model() -> bytes:
    return Path(f"{EXAMPLE}.xml").read_bytes()


def robot(valid: Valid, rng: random.Random) -> Case:
    declared = yaml.safe_load(Path(f"{EXAMPLE}.yaml").read_text(encoding="utf-8"))
    which = rng.randrange(4)
    mjcf, urdf, family = model().decode(), URDF, declared if which % 2 else URDF_FAMILY
    if which == 0:
        urdf = mutate_xml(urdf, rng)
    elif which == 1:
        mjcf = mutate_xml(mjcf, rng)
    else:
        family = mutate_tree(family, rng)
    text = (
        dump(family)
        if rng.random() < 0.8
        else mutate_text(dump(family).decode(), rng).encode("utf-8", "surrogateescape")
    )
    name, data = ("r.xml", mjcf) if which % 2 else ("r.urdf", urdf)
    files = {name: data.encode("utf-8", "surrogateescape"), "f.yaml": text}
    own = ["--robot", name, "--family", "f.yaml", *TINY, "family.horizon=5"]
    return Case("robots", ["robot", "check", name, *own[2:4]] if rng.random() < 0.7 else ["train", *own], files)


MUTATIONS = (config, config, sweep, line, line, rollout, checkpoint, belief, folder, robot, robot)


def header(text: str) -> bytes:
    """An .npz whose rewards have this header."""
    buffer = io.BytesIO()
    padded = text.encode() + b"\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rewards.npy", b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded)
    return buffer.getvalue()


def bomb(name: str, size: int) -> bytes:
    """Zeros, packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(size))
    return buffer.getvalue()


def corpus() -> list[Case]:
    """Inputs of which each was a fault once, here or in other programs."""
    yamls = [f"training: {{seed: {word}}}" for word in WORDS] + [
        LAUGHS,
        "a: " * 500,
        "\0",
        "\ufeff",
        "---\n" * 99,
        "- " * 3000,
    ]
    cases = [
        Case("config", ["train", "--config", "c.yaml", "family.horizon=5", *TINY], {"c.yaml": text.encode()})
        for text in yamls
    ]
    cases += [
        Case("config", ["sweep", "c.yaml"], {"c.yaml": text.encode()}) for text in (LAUGHS, "factors: " + WORDS[9])
    ]
    cases += [
        Case("robots", ["robot", "check", "r.xml", "--family", "f.yaml"], {"r.xml": model(), "f.yaml": text.encode()})
        for text in yamls
    ]
    for name in (
        "training.seed",
        "training.tasks",
        "family.horizon",
        "agent.inner_lr",
        "evaluation.seeds",
        "agent.hidden_sizes",
    ):
        cases += [
            Case("command line", ["train", "--family", "point_goal", f"{name}={value}"])
            for value in ("9" * 400, "1e400", "[" * 3000, "-1")
        ]
    cases += [
        Case("command line", arguments)
        for arguments in ([], [""], ["train", "--name", "../../x"], ["train", "--resume", "\udcff"])
    ]
    cases += [
        Case("command line", ["evaluate", "run", "--seeds", "9" * 30]),
        Case("command line", ["evaluate", "a\0b"]),
    ]
    cases += [
        Case("command line", ["render", "--family", "point_goal", "--task", task])
        for task in ("[" * 9999, '{"goal_x": 1e999}', '{"goal_x": "a"}', '{"goal_x": ' + "9" * 500 + "}", "{" * 99)
    ]
    for text in ("(10**12,)", "(-1,)", "(1000000000000,)", "('a',)", "(" * 9000, f"({10**30},)", "()"):
        npy = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}")
        cases.append(Case("rollouts", ADAPT, {"log/shot00_episode000.npz": npy}))
    cases += [Case("rollouts", ADAPT, {"log/a.npz": data}) for data in (PIPE, b"", b"PK", bomb("rewards.npy", 2**29))]
    cases += [
        Case("checkpoints", [*ADAPT, "--checkpoint", "c.pt"], {"c.pt": data})
        for data in (PIPE, b"", b"PK", bomb("c/data.pkl", 2**29))
    ]
    cases += [
        Case("checkpoints", [*ADAPT, "--checkpoint", place]) for place in (".", "/dev/zero", "/dev/null", "absent")
    ]
    cases += [
        Case("runs", ["train", "--resume", "run", "training.iterations=3"], {f"run/{name}": PIPE})
        for name in ("metrics.jsonl", "config.yaml", "checkpoints/best.pt", "checkpoints/iteration_000009.pt", ".lock")
    ]
    cases += [
        Case("robots", ["robot", "check", name], {name: data})
        for name, data in (("r.xml", PIPE), ("r.xml", b""), ("r.urdf", b"<robot/>"), ("r.xml", b"<mujoco/>"))
    ]
    laughs = '<!DOCTYPE l [<!ENTITY a "x">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    cases.append(Case("robots", ["robot", "check", "r.xml"], {"r.xml": f'{laughs}]><mujoco model="&i;"/>'.encode()}))
    return cases
