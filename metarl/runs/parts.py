"""The files that the files of a family name: meshes, included models, code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from metarl.envs import code, mujoco_log
from metarl.envs.own_robot.hooks import functions_in
from metarl.envs.own_robot.model_files import parts_of_model
from metarl.envs.own_robot.settings import DECLARATIONS
from metarl.runs.entries import content


def parts_by_content(files: Mapping[str, str]) -> dict[str, str]:
    """Return the content of all files that the files of a family name, by their own name and that of the setting.

    files: of the family, by setting. No folder counts, so that copies elsewhere are the same, and no code is run.
    """
    found = defaultdict(set)
    for setting, file in files.items():
        for part in _parts(file):
            found[f"{part.name}, which family.{setting} names,"].add(content(str(part)))
    return {name: " ".join(sorted(contents)) for name, contents in found.items()}


@mujoco_log.silent()
def _parts(file: str) -> list[Path]:
    """Return the files that a file of a family names; none for a file that cannot be read."""
    if code.is_function(file):
        own = code.file_of(file)
        return [own] if own is not None else []
    if file.endswith(DECLARATIONS):
        return [own for function in functions_in(file).values() if (own := code.file_of(function)) is not None]
    try:
        return parts_of_model(file)
    except ValueError:  # whoever makes the family says what is wrong
        return []
