"""`metarl identify RUN --identifier DIR --rollouts DIR`: tell which class logged episodes are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import one_run
from metarl.errors import UsageError, usage_errors
from metarl.options import flag
from metarl.wording import number_of

if TYPE_CHECKING:
    from metarl.identification.identifier import Identifier
    from metarl.runs.run import Run

OPTIONS = ("identifier", "rollouts", "support", "only")
"""Options of the command that tells logged episodes apart; the first two are needed."""


def asked_for(given: Arguments) -> bool:
    """Return whether logged episodes are to be told apart, by an identifier that is there."""
    return any(name in given.options for name in OPTIONS)


def run(given: Arguments, blank: object, invocation: Invocation) -> int:
    """Run the command. blank: as of `one_run`."""
    directory, _ = one_run(given, blank, "metarl identify")
    for name in given.options:
        if name not in OPTIONS:
            raise UsageError(
                f"{flag(name)} is of an identifier that is to be trained; with --identifier and --rollouts there are "
                f"{' and '.join(flag(other) for other in OPTIONS[2:])} besides"
            )
    for name in OPTIONS[:2]:
        if len(given.options.get(name, ())) != 1:
            raise UsageError(f"metarl identify needs {flag(name)} DIR, one folder, to tell logged episodes apart")
    [folder], [source] = (given.options[name] for name in OPTIONS[:2])

    from metarl.deployment.logs import load_episodes
    from metarl.identification.identifier import Identifier
    from metarl.runs.run import load_run

    invocation.run_dir = directory
    loaded, identifier = load_run(directory), Identifier.load(folder)
    _require_same_policy(identifier, loaded, folder)
    episodes = load_episodes(source, loaded.family)
    with usage_errors("--support"):
        if "support" in given.options:
            logs = {label: load_episodes(own, loaded.family) for label, own in _labelled(given.options["support"])}
            identifier.support(logs)
    if "only" in given.options:
        identifier = identifier.only(given.options["only"])
    with usage_errors("--rollouts"):
        for episode in episodes if len(episodes) > 1 else ():
            answer = identifier.identify_logged([episode])
            print(f"{episode.source}: {answer}", flush=True)
        together = f"{number_of(len(episodes), 'episode')} together" if len(episodes) > 1 else episodes[0].source
        print(f"{together}: {identifier.identify_logged(episodes)}")
    return 0


def _require_same_policy(identifier: Identifier, run: Run, folder: str) -> None:
    """Raise UsageError if the identifier reads other observations or actions than those of a run."""
    ours, family = identifier.policy, run.family
    if list(ours.observation_names) != list(family.observation_names) or ours.action_size != family.action_size:
        raise UsageError(
            f"--identifier {folder} reads the {len(ours.observation_names)} observations and {ours.action_size} "
            f"actions of a policy on {ours.family}, and {run.directory} has others; name the run that it was made with"
        )


def _labelled(texts: list[str]) -> list[tuple[str, str]]:
    """Return label and folder of each LABEL:DIR; UsageError for another text, and for a label that is given twice."""
    found = [(label, folder) for label, _, folder in (text.partition(":") for text in texts)]
    labels = [label for label, _ in found]
    for text, (label, folder) in zip(texts, found, strict=True):
        if not label or not folder:
            raise UsageError(f"--support has {text!r}; give LABEL:DIR, a folder of logged episodes for each class")
        if labels.count(label) > 1:
            raise UsageError(f"--support has the class {label!r} twice; put its episodes into one folder")
    return found
