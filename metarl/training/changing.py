"""Agents that infer one task for a whole trial, where tasks change while a trial lasts."""

from __future__ import annotations

from metarl.runs.run import Run


def change_note(run: Run) -> str:
    """Return the note that the agent infers one task for trials whose tasks change; empty if not so.

    Nothing is said of `maml` and fine-tuned `ppo`: their steps on what they met are judged by the return that follows,
    after a change too, and nothing in them is assumed of the task.
    """
    name, family = run.config.agent_name, run.family
    if not (run.agent.facts.infers_one_task and family.changing):
        return ""
    return (
        f"{name} infers one task for a whole trial, but tasks of {family.name} change while a trial lasts: what it met "
        "before a change still counts after it. --agent rl2 and --agent distilled assume no such task, and can follow "
        "a change"
    )
