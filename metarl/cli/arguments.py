"""Command-line arguments: sorted and checked here, so that every error is one line, then parsed by tyro."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tyro

from metarl.config import (
    REGISTRIES,
    EvaluationSettings,
    TrackingSettings,
    TrainingSettings,
    owners,
    require_faults,
    with_setting,
)
from metarl.envs.docstrings import field_texts
from metarl.errors import FEW, SECTIONS, UsageError, nearest
from metarl.options import ENTRIES, TRUTH, coerce, flag, is_entry, value_of

T = TypeVar("T")

OPTION = re.compile(rf"(?P<dashes>--)?(?P<name>{re.escape(ENTRIES)}[^=]+|[A-Za-z][\w.-]*)(=(?P<value>.*))?", re.DOTALL)
SHORT = {
    "split": "evaluation.split",
    "shots": "evaluation.adaptations",
    "episodes": "evaluation.envs_per_task",
    "seeds": "evaluation.seeds",
    "reset_memory": "evaluation.reset_memory",
    "lives": "evaluation.lives",
    "revisit": "evaluation.revisit",
}
"""Settings by their short names in `metarl evaluate`."""


def _names(kind: Any) -> set[str]:
    """Return the dotted names of the settings of all agents and families whose type is `kind` or made of it."""
    sections = [(section, entry.settings) for section, entries in REGISTRIES.items() for entry in entries.values()]
    sections += [("training", TrainingSettings), ("evaluation", EvaluationSettings), ("tracking", TrackingSettings)]
    return {
        f"{section}.{name}"
        for section, cls in sections
        for name, annotation in typing.get_type_hints(cls).items()
        if kind in (annotation, typing.get_origin(annotation))
    }


LISTS = _names(tuple) | {"by", "hold_out", "seconds", "support", "only", "metric.hidden_sizes", "metric.relation_sizes"}
SWITCHES = _names(bool) | {"off_policy", "explore", "metric.reward_input"}


def _documented(names: Sequence[str]) -> tyro.constructors.ConstructorRegistry:
    """Return how --help documents settings, and the entries of a mapping, which have these names.

    Entries are set apart from the mapping, and tyro keeps its default.
    """
    registry = tyro.constructors.ConstructorRegistry()

    @registry.struct_rule
    def section(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        kinds = typing.get_type_hints(info.type, include_extras=True)
        return tyro.constructors.StructConstructorSpec(
            instantiate=info.type,
            fields=tuple(
                tyro.constructors.StructFieldSpec(
                    name=field.name,
                    type=_shown(field.name, kinds[field.name], names),
                    default=getattr(info.default, field.name),
                    helptext=lambda name=field.name: field_texts(info.type).get(name),  # tyro breaks it as the source
                )
                for field in dataclasses.fields(info.type)
            ),
        )

    @registry.primitive_rule
    def mapping(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if typing.get_origin(info.type) is not Mapping:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="LOW HIGH",
            instance_from_str=list,
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda value: [text for name, ends in value.items() for text in (name, *map(str, ends))],
        )

    return registry


def _shown(name: str, kind: Any, names: Sequence[str]) -> Any:
    """Return the type of a setting, a mapping's with how the options of its entries are typed."""
    if typing.get_origin(kind) is not Mapping:
        return kind
    hint = f"NAME is one of {', '.join(names)}." if names else ""
    return Annotated[kind, tyro.conf.arg(name=f"{name}.NAME", help_behavior_hint=hint)]


@dataclass
class Arguments:
    """Arguments sorted into positionals and options."""

    positionals: list[str]
    options: dict[str, list[str]]
    """Values as they were typed, by the option's name with underscores."""
    help: bool

    @staticmethod
    def split(tokens: Sequence[str]) -> Arguments:
        """Sort tokens: `--a.b c`, `--a.b=c` and `a.b=c` are the same; a list takes all tokens up to the next option."""
        result = Arguments([], {}, help=False)
        rest = list(tokens)
        while rest:
            token = rest.pop(0)
            match = _option(token)
            if token in ("-h", "--help"):
                result.help = True
            elif match is None:
                result.positionals.append(token)
            else:
                name = named(match["name"])
                if name in result.options:
                    raise UsageError(f"{flag(name)} is given twice")
                result.options[name] = [match["value"]] if match["value"] is not None else _values(name, rest)
        return result

    def take(self, names: Collection[str]) -> dict[str, str]:
        """Remove and return the values of options that are no settings, by name."""
        taken = {}
        for name in [n for n in self.options if n in names]:
            values = self.options.pop(name)
            if not values or not values[0]:
                raise UsageError(f"{flag(name)} needs a value")
            taken[name] = values[0]
        return taken

    @staticmethod
    def plain(
        tokens: Sequence[str], options: Collection[str], switches: Collection[str] = (), hidden: Collection[str] = ()
    ) -> tuple[Arguments, dict[str, str], frozenset[str]]:
        """Sort the tokens of a command without settings: (positionals and help, values of its options, its switches).

        options: names that take a value. switches: names that take none. hidden: options that no message names.
        UsageError for any other option, unless help is asked for.
        """
        names = {flag(name): name for name in switches}
        given = Arguments.split([token for token in tokens if token not in names])
        if given.help:
            return given, {}, frozenset()
        taken = given.take([*options, *hidden])
        for name in given.options:
            if name in switches:
                raise UsageError(f"{flag(name)} takes no value")
            elsewhere = (
                name.partition(".")[0] in SECTIONS and "; this command takes no settings, metarl train and evaluate do"
            )
            hint = elsewhere or nearest(flag(name), map(flag, [*options, *switches]))
            raise UsageError(f"unknown option {flag(name)}{hint}")
        return given, taken, frozenset(names[token] for token in tokens if token in names)

    def parse(self, command: T, types: Mapping[str, Any], plain: Collection[str], prog: str, about: str = "") -> T:
        """Return the command with the remaining options set.

        types: of the command's settings, by dotted name. plain: names of its other options, for messages. about: what
        --help says at its head, besides what the command does.
        """
        tokens = ["--help"] if self.help else []
        for name, values in self.options.items():
            if name not in types:
                raise UsageError(f"unknown option {flag(name)}{_meant(name, [*plain, *types], prog)}")
            value = value_of(name, values, types[name])
            if is_entry(name):
                command = with_setting(command, name, value)
            else:
                tokens += _tokens(name, value)
        config = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)
        description = _paragraphs(f"{inspect.getdoc(command)}\n\n{about}")
        with _documented([name.removeprefix(ENTRIES) for name in types if is_entry(name)]):
            parsed = tyro.cli(
                type(command), default=command, prog=prog, description=description, args=tokens, config=config
            )
        require_faults(self.options, getattr(parsed, "family", None), flag)
        return parsed


def _paragraphs(text: str) -> str:
    """Return text with each paragraph in one line, which the terminal breaks."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def whole(text: str, name: str, least: int = 1) -> int:
    """Return the value of an option as a whole number; UsageError for anything else, and for less than `least`."""
    number = coerce(text, int, name)
    if number < least:
        raise UsageError(f"{name} is {number}; it must be at least {least}")
    return number


def meant_elsewhere(name: str, valid: Sequence[str]) -> str:
    """Return a hint for an unknown setting that is one of other agents or families, or an entry of a mapping."""
    if entries := [flag(other) for other in valid if is_entry(other)] if is_entry(name) else []:
        return nearest(flag(name), entries, f"; the robot's file has {', '.join(entries)}")
    if is_entry(name) and "family.observe" in valid:
        return "; the robot's file declares no range"
    if is_entry(name) and "family.source" in valid:
        return "; the ranges of your own environment are in its function, metarl.quantity(...): write a second function"
    return owners(name)


def _meant(name: str, valid: Sequence[str], prog: str) -> str:
    """Return the hint that follows an unknown option."""
    if elsewhere := meant_elsewhere(name, valid):
        return elsewhere
    setting, flags = SHORT.get(name, ""), [flag(other) for other in valid]
    otherwise = f"; {prog} --help lists the options" if len(valid) > FEW else ""
    if setting in valid:
        otherwise = f"; {setting.partition('.')[0]} has it: {flag(setting)}"
    elif setting:
        otherwise = nearest(flag(setting), flags, otherwise)
    return nearest(flag(name), flags, otherwise)


def _option(token: str) -> re.Match[str] | None:
    match = OPTION.fullmatch(token)
    return match if match and (match["dashes"] or ("." in match["name"] and match["value"] is not None)) else None


def named(text: str) -> str:
    """Return an option's name with underscores; the name of a mapping's entry, which its user chose, as it is."""
    head, dot, entry = text.partition(ENTRIES)
    return head.replace("-", "_") + dot + entry


def _values(name: str, rest: list[str]) -> list[str]:
    """Remove an option's values from the tokens after it and return them."""
    if name in SWITCHES and not (rest and rest[0].lower() in TRUTH):
        return ["true"]
    values = []
    while (
        rest
        and (name in LISTS or is_entry(name) or not values)
        and _option(rest[0]) is None
        and rest[0] not in ("-h", "--help")
    ):
        values.append(rest.pop(0))
    return values


def _tokens(name: str, value: Any) -> list[str]:
    """Return a checked value as tokens for tyro."""
    return [flag(name), *map(str, value)] if isinstance(value, tuple) else [f"{flag(name)}={value}"]
