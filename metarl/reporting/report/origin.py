"""Sections of a report on how its runs were made: settings, commands, versions, machines, seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.config import dump_yaml
from metarl.envs.text import typed
from metarl.reporting.columns import ABSENT, Table
from metarl.reporting.report.material import ReportedRun, config_differences
from metarl.reporting.report.page import Block, Code, Section, Text
from metarl.wording import number_of


def settings_section(runs: Sequence[ReportedRun]) -> Section:
    """Return the section on settings: those that differ between runs, and the complete configuration of each."""
    differences = {
        name: values
        for name, values in config_differences(runs).items()
        if len({_value(value) for value in values if value is not None}) > 1
    }
    blocks: list[Block] = []
    if len(runs) > 1 and differences:
        rows = [(name, *map(_value, values)) for name, values in differences.items()]
        blocks.append(Table("Settings that differ", ("setting", *(run.label for run in runs)), rows))
    elif len(runs) > 1:
        blocks.append(Text("The runs have the same settings."))
    if len({run.config.agent_name for run in runs}) > 1:
        blocks.append(Text("What only one kind of agent has is in the complete configurations."))
    blocks += [Code(f"Complete configuration of {run.label}", dump_yaml(run.config).strip(), True) for run in runs]
    return Section("Settings", blocks)


def _value(value: Any) -> str:
    """Return the value of a setting as a configuration file has it."""
    if value is None:
        return ABSENT
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else '""'


def origin_section(runs: Sequence[ReportedRun], made: Mapping[str, Any]) -> Section:
    """Return the section on commands, versions, commits, machines and seeds. made: provenance of the report."""
    blocks: list[Block] = []
    for run in runs:
        commands = list(dict.fromkeys(as_typed(str(record.get("command", ""))) for record in run.history))
        if commands:
            blocks.append(Code(f"Commands that trained or evaluated {run.label}:", "\n".join(commands)))
        again = f"metarl train --config {typed(run.directory / 'config.yaml')}"
        blocks.append(Code(f"Repeats the training of {run.label}:", again))
    records = [(run.label, run.history[-1]) for run in runs if run.history] + [("this report", made)]
    rows = [
        (
            name,
            str(record.get("time", ABSENT)),
            str(record.get("commit") or "no checkout"),
            _machine(record.get("machine") or {}),
            ", ".join(f"{k} {v}" for k, v in {"metarl": record.get("metarl"), **record.get("versions", {})}.items()),
        )
        for name, record in records
    ]
    blocks.append(
        Table("Each run's last evaluation, and this report", ("run", "time", "commit", "machine", "versions"), rows)
    )
    seeds = [
        (
            run.label,
            str(run.config.training.seed),
            ", ".join(
                map(str, (run.evaluations[0].comparison.settings if run.evaluations else run.config.evaluation).seeds)
            ),
        )
        for run in runs
    ]
    blocks.append(Table("Seeds", ("run", "training", "evaluation"), seeds))
    return Section("How it was made", blocks)


def as_typed(text: str) -> str:
    """Return a command as it is typed."""
    return re.sub(r"^(__main__\.py|metarl)\b", "metarl", text)


def _machine(machine: Mapping[str, Any]) -> str:
    kept = [str(machine[key]) for key in ("processor", "platform") if machine.get(key)]
    cores, python = machine.get("cores"), machine.get("python")
    return ", ".join([*kept, *([number_of(cores, "core")] if cores else []), *([f"Python {python}"] if python else [])])
