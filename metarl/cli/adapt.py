"""`metarl adapt`: a belief from logged episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli import AGENT_OPTIONS, one_run
from metarl.cli.app import Session
from metarl.cli.arguments import Arguments
from metarl.errors import UsageError
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
    """Adapt a run's policy to a task from logged episodes, and save what it came to know: its belief."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """The run's folder."""
    rollouts: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of .npz files, one an episode, or minari:DATASET, or minari:FOLDER; see docs/deploy.md."""
    adaptations: int = 3
    """Shots to adapt from at most; not given: the run's evaluation.adaptations."""
    off_policy: bool = False
    """Take a policy-gradient step from actions that are not the policy's own. It is biased."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE.pt")] = ""
    """Where the belief goes. Empty: in the run's folder beliefs, under the name of the rollouts."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Torch device of the agent; not given: the run's."""


def run(arguments: list[str], session: Session) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, AdaptCommand(), "metarl adapt")
    command = AdaptCommand(str(directory), adaptations=config.evaluation.adaptations, device=config.training.device)
    command = given.parse(command, OPTIONS, (), "metarl adapt")
    if not command.rollouts:
        raise UsageError("metarl adapt needs --rollouts: a folder of .npz files, or minari:DATASET")
    if command.adaptations < 1:
        raise UsageError(f"--adaptations is {command.adaptations}; it must be at least 1")

    from metarl.deployment import rollouts
    from metarl.runs import beliefs
    from metarl.runs.run import load_run

    session.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    episodes = rollouts.load_episodes(command.rollouts, loaded.family)
    adapted = rollouts.adapt(loaded, episodes, command.adaptations, command.off_policy)
    name = Path(command.rollouts.removeprefix(rollouts.MINARI)).resolve().name
    output = Path(command.output) if command.output else directory / beliefs.FOLDER / f"{name}.pt"
    beliefs.save_belief(output, loaded, adapted.belief, len(adapted.shots), command.rollouts)
    for k, shot in enumerate(adapted.shots):
        total = sum(float(episode.rewards.sum(dtype=float)) for episode in shot) / len(shot)
        steps = sum(len(episode.rewards) for episode in shot)
        print(f"shot {k}: {number_of(len(shot), 'episode')}, {number_of(steps, 'step')}, mean return {total:z.1f}")
    if adapted.left:
        total = len(adapted.shots) + adapted.left
        print(f"{adapted.left} of {total} shots are left; --adaptations {total} adapts from all")
    print(f"saved {output}; metarl export {directory} --belief {output} puts it on a robot")
    return 0
