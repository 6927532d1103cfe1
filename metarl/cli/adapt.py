"""`metarl adapt`: adapt a policy to episodes that were logged on a robot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.bounds import MOST
from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import AGENT_OPTIONS, one_run, option
from metarl.envs.text import typed
from metarl.errors import UsageError
from metarl.files import require_place
from metarl.wording import number_of

OPTIONS: dict[str, Any] = {
    "rollouts": str,
    "adaptations": int,
    "off_policy": bool,
    "output": str,
    **AGENT_OPTIONS,
}


@dataclass(frozen=True)
class AdaptCommand:
    """Adapt a run's policy to a task from logged episodes, and save the resulting belief."""

    run: Annotated[tyro.conf.Positional[str], option("RUN")] = ""
    """Folder of the run."""
    rollouts: Annotated[str, option("DIR")] = ""
    """Folder of .npz files, one for each episode, or minari:DATASET, or minari:FOLDER; see docs/deploy.md."""
    adaptations: Annotated[int, option(default="the run's evaluation.adaptations, or all if that is 0")] = 3
    """Largest number of shots to adapt from."""
    off_policy: bool = False
    """Adapt also from actions of another policy. The policy gradient is then biased."""
    output: Annotated[str, option("FILE.pt", default="beliefs/ROLLOUTS.pt in the run's folder")] = ""
    """File to save the belief in."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="the run's")] = "auto"
    """Torch device of the agent."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, AdaptCommand(), "metarl adapt")
    command = AdaptCommand(
        str(directory), adaptations=config.evaluation.adaptations or MOST, device=config.training.device
    )
    command = given.parse(command, OPTIONS, (), "metarl adapt")
    if not command.rollouts:
        raise UsageError("metarl adapt needs --rollouts: a folder of .npz files, or minari:DATASET")
    if command.adaptations < 1:
        raise UsageError(f"--adaptations is {command.adaptations}; it must be at least 1")

    from metarl.deployment.adaptation import adapt
    from metarl.deployment.logs import MINARI, load_episodes
    from metarl.runs import beliefs
    from metarl.runs.run import load_run

    invocation.run_dir = directory
    if command.output:
        require_place(Path(command.output), "--output")
    loaded = load_run(directory, command.checkpoint, command.device)
    episodes = load_episodes(command.rollouts, loaded.family)
    adapted = adapt(loaded, episodes, command.adaptations, command.off_policy)
    source = command.rollouts if command.rollouts.startswith(MINARI) else str(Path(command.rollouts).resolve())
    name = Path(source.removeprefix(MINARI)).name
    output = Path(command.output) if command.output else directory / beliefs.FOLDER / f"{name}.pt"
    other = "" if command.output else beliefs.source_of(output)
    if other and other != source:
        raise UsageError(f"{output} is the belief adapted from {other}; choose another file by --output")
    beliefs.save_belief(output, loaded, adapted.belief, len(adapted.shots), source)
    for k, shot in enumerate(adapted.shots):
        total = sum(float(episode.rewards.sum(dtype=float)) for episode in shot) / len(shot)
        steps = sum(len(episode.rewards) for episode in shot)
        print(f"shot {k}: {number_of(len(shot), 'episode')}, {number_of(steps, 'step')}, mean return {total:z.1f}")
    if adapted.left:
        total = len(adapted.shots) + adapted.left
        print(f"{adapted.left} of {total} shots were not used; --adaptations {total} adapts from all")
    chosen = "" if command.checkpoint == "last" else f" --checkpoint {typed(command.checkpoint)}"
    again = f"metarl export {typed(directory)} --belief {typed(output)}{chosen}"
    print(f"saved {output}; to export the adapted policy: {again}")
    return 0
