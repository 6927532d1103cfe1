import inspect
import typing
from pkgutil import resolve_name

import pytest

from metarl.envs.family import TaskFamily
from metarl.envs.registry import FAMILIES, FAMILY_SETTINGS, keep_files, make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings


@pytest.mark.parametrize("name", FAMILIES)
def test_an_entry_names_a_function_of_its_settings_and_no_class_is_registered_twice(name):
    entry = FAMILIES[name]
    make = resolve_name(entry.make)
    hints = typing.get_type_hints(make)
    assert list(inspect.signature(make).parameters) == ["settings"]
    assert hints == {"settings": entry.settings, "return": TaskFamily}
    if entry.copy:
        assert typing.get_type_hints(resolve_name(entry.copy))["settings"] is entry.settings
    assert list(FAMILY_SETTINGS.values()).count(entry.settings) == 1
    assert make_family(entry.settings()).name == name


def test_a_family_that_names_no_files_keeps_none(tmp_path):
    assert keep_files(PointGoalSettings(), tmp_path / "files") == PointGoalSettings()
    assert not (tmp_path / "files").exists()
