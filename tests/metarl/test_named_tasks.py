"""Named tasks, as the quadruped's published robots: where they are evaluated, drawn and chosen."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from metarl.agents.sb3.settings import PpoSettings
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.evaluation.evaluate import evaluate_agent
from metarl.reporting import contact_sheet
from metarl.runs.run import build

ROBOTS = ["a1", "go2", "mini_cheetah", "anymal_c", "spot"]
SMALL = QuadrupedBodySettings(horizon=20)


def test_an_evaluation_on_them_says_how_each_did():
    settings = EvaluationSettings(split="ood", tasks=7, envs_per_task=2, adaptations=0, seeds=(1, 2))
    family, agent = build(RunConfig(agent=PpoSettings(), family=SMALL, evaluation=settings))
    result = evaluate_agent(agent, family, settings, 1)
    [note] = [note for note in result.notes if note.startswith("mean return of each after the last round: ")]
    said = dict(re.findall(r"(\w+) (-?[\d.]+) \(", note))
    assert list(said) == ROBOTS
    for i, name in enumerate(ROBOTS):
        places = [i, i + 5] if i < 2 else [i]  # seven tasks are drawn in turn
        assert float(said[name]) == pytest.approx(result.returns[:, -1, places].mean(), rel=1e-3)
        falls = 100 * result.measures["falls"][:, -1, places].mean()
        assert re.search(rf"{name} [^)]*falls {falls:.0f} %", note)
    held_out = replace(settings, split="held_out")
    assert not any("mean return of each" in note for note in evaluate_agent(agent, family, held_out, 1).notes)


@pytest.mark.thorough
def test_a_contact_sheet_shows_all_of_them_once(tmp_path, monkeypatch):
    family, shown = make_family(SMALL), []

    def picture(family, task):
        shown.append(family.name_of(task.values))
        return np.zeros((72, 96, 3), np.uint8)

    monkeypatch.setattr(contact_sheet, "picture", picture)
    monkeypatch.setattr(contact_sheet, "SAMPLES", 12)
    contact_sheet.draw(family, tmp_path / "sheet.png")
    assert shown == [""] * (len(shown) - 5) + ROBOTS and len(shown) > 5
    assert contact_sheet._tile_caption(family, family.task_named("spot"))[0] == "spot"


@pytest.mark.usefixtures("graphics")
def test_a_task_is_filmed_by_its_name(tmp_path, capsys):
    order = ["render", "--family", "quadruped_body", "--actions", "zero", "--seconds", "0.1", "--output"]
    assert cli.main([*order, str(tmp_path / "spot.mp4"), "--task", "spot"]) == 0
    assert (tmp_path / "spot.mp4").stat().st_size > 1000
    assert cli.main([*order, str(tmp_path / "no.mp4"), "--task", "anymal"]) == 2
    assert "has no task named 'anymal'; did you mean 'anymal_c'?" in capsys.readouterr().err
