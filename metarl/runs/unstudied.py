"""What is said of a student that training has not begun to teach."""

from __future__ import annotations

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.rma.settings import RmaSettings


def unstudied(settings: AgentSettings, iterations: int, what: str) -> str:
    """Return that the student learns nothing within so many iterations of training; empty if it does.

    what: has this number of iterations.
    """
    if not isinstance(settings, RmaSettings) or iterations > settings.before_study:
        return ""
    name = "teacher_updates" if settings.stages == "rma" else "study_every"
    return (
        f"outside of training RMA's student acts, and it learns from iteration {settings.before_study + 1} on "
        f"(agent.{name}={getattr(settings, name)}); {what} has {iterations}, so that it knows nothing"
    )
