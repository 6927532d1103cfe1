"""The README's picture of the task families: robots, goals and grounds, each a task of its family.

python -m benchmarks.families_picture [--output docs/families.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.terrain.kinds import number
from metarl.reporting.contact_sheet import picture
from metarl.reporting.figures import INK, QUIET, STYLE, save

COLUMNS = 4
TILE_INCHES = (2.0, 1.72)
"""Of a robot with its caption."""
SEED = 0.3
"""Of the grounds."""


def ground(kind: str, difficulty: float) -> dict[str, float]:
    """The values of a kind of ground."""
    return {"terrain_kind": number(kind), "terrain_difficulty": difficulty, "terrain_seed": SEED}


TILES: tuple[tuple[str, Mapping[str, float], str], ...] = (
    ("half_cheetah_velocity", {}, "a target velocity"),
    ("half_cheetah_limbs", {"bthigh_length": 1.6, "fshin_length": 1.5, "bshin_thickness": 1.6}, "limbs of other sizes"),
    ("half_cheetah_terrain", ground("stairs_up", 0.5), "stairs"),
    ("walker2d_terrain", ground("obstacles", 1.0), "obstacles"),
    ("ant_legs", {"legs": 3}, "three legs"),
    ("quadruped_legs", {"legs": 6}, "six legs"),
    ("ant_goal", {"goal_angle": 0.9, "goal_radius": 2.2}, "an unseen goal"),
    ("ant_terrain", ground("waves", 1.0), "waves"),
    ("quadruped", {"payload_mass": 4.0}, "a payload"),
    ("quadruped_terrain", ground("stairs_down", 0.5), "stairs"),
    ("quadruped_terrain", ground("rough", 1.0), "rough ground"),
    ("humanoid_direction", {}, "a direction"),
)
"""(family, the task's values, what the task is about)."""


def draw(path: Path) -> None:
    """Write the picture as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = -(-len(TILES) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(TILE_INCHES[0] * COLUMNS, TILE_INCHES[1] * rows), layout="constrained")
        plots = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for axes, (name, values, about) in zip(plots, TILES, strict=True):
            family = make_family(FAMILY_SETTINGS[name]())
            axes.imshow(picture(family, family.task(values)), interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, edgecolor=QUIET, linewidth=0.8)
            axes.set_xlabel(f"{name}: {about}", fontsize=7, labelpad=3, color=INK)
        save(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the README's picture of the task families.")
    parser.add_argument("--output", type=Path, default=Path("docs/families.png"))
    options = parser.parse_args(arguments)
    draw(options.output)
    print(f"saved {options.output} ({options.output.stat().st_size / 1000:.0f} KB)")


if __name__ == "__main__":
    main()
