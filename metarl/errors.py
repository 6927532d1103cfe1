"""Errors for the user's mistakes and for faults at run time, and suggestions for misspelt names."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

from metarl.envs.text import one_line

NEAR, SURE = 0.66, 0.8
"""Smallest similarity (difflib's ratio) of a name to the suggested one: `pop` suggests `ppo`, `walk` does not suggest
`watch`; and the smallest if another section has exactly this name."""
SECTIONS = ("agent", "family", "training", "evaluation", "tracking")
"""Sections of the configuration, the first part of a setting's dotted name."""
FEW, MANY = 8, 30
"""Largest number of valid names that are listed beside a suggestion, and without one."""
LONG = 80
"""Longest part of a misspelt name that is compared, characters."""
LONGEST = 500
"""Longest message on the terminal, characters."""


class UsageError(ValueError):
    """A mistake of the caller; the command line exits with 2."""


class RunError(RuntimeError):
    """A fault at run time whose message needs no traceback; the command line exits with 1."""


@contextlib.contextmanager
def usage_errors(what: str) -> Iterator[None]:
    """Turn errors from building something with the caller's values into `UsageError`.

    `envs` and `agents` raise ValueError, and missing files FileNotFoundError. what: section of the configuration, which
    is put in front of a message that does not name it.
    """
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OverflowError, MemoryError, RuntimeError, OSError) as error:
        files = FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError
        if isinstance(error, OSError | RuntimeError) and not isinstance(error, files) and not out_of_memory(error):
            raise
        message = f"{NO_MEMORY} ({describe(error)[:200]})" if out_of_memory(error) else describe(error)
        raise UsageError(message if message.startswith(what) else f"{what}: {message}") from error


NO_MEMORY = "it needs more memory than there is"


def out_of_memory(error: BaseException) -> bool:
    """Return whether NumPy or torch could not allocate memory."""
    words = ("not enough memory", "out of memory", "allocate memory")
    torchs = isinstance(error, RuntimeError) and any(said in str(error) for said in words)
    return torchs or isinstance(error, MemoryError)


def describe(error: BaseException) -> str:
    """Return an exception as one line of bounded length without control characters."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return one_line(f"{where}{error.strerror}", LONGEST)
    return one_line(str(error), LONGEST) or type(error).__name__


def nearest(name: str, valid: Iterable[str], otherwise: str = "") -> str:
    """Return a hint for an unknown name: the section that has it, or the nearest valid name, or the valid names.

    A name may have a section (`agent.inner_lr`) and dashes. otherwise: hint instead of the list if no name is near.
    """
    name, names = name[:LONG], list(valid)
    close, places = _closest(name, names), _places(name, names)
    if places and not (_section(name) and close and (_likeness(name, close) or 0) >= SURE):
        sections = list(dict.fromkeys(map(_section, places)))
        return f"; {' and '.join(sections)} {'has' if len(sections) == 1 else 'have'} it: {', '.join(places)}"
    if close is None and (otherwise or not names):
        return otherwise
    hint = f"; did you mean {close!r}?" if close else ""
    if close and len(names) > FEW:
        return hint
    listed = [other for other in names if _section(other) == _section(name)] or names
    more = f" and {len(listed) - MANY} more" if len(listed) > MANY else ""
    return f"{hint} Valid: {', '.join(listed[:MANY])}{more}" if hint else f"; valid: {', '.join(listed[:MANY])}{more}"


def _closest(name: str, names: Sequence[str]) -> str | None:
    """Return the valid name that was probably meant: misspelt, abbreviated, or lacking a word; None without one."""
    meant = [(likeness, other) for other in names if (likeness := _likeness(name, other)) is not None]
    return max(meant, key=lambda pair: pair[0])[1] if meant else None


def _likeness(name: str, other: str) -> float | None:
    """Return the similarity in [0, 1]; None if it is too small. A missing section matches any."""
    (asked_section, asked), (section, leaf) = _parts(name), _parts(other)
    of_section = difflib.SequenceMatcher(None, asked_section, section).ratio() if asked_section and section else 1.0
    of_leaf = difflib.SequenceMatcher(None, asked, leaf).ratio()
    shortened = (len(asked) > 2 and leaf.startswith(asked)) or set(asked.split("_")) <= set(leaf.split("_"))
    return min(of_section, of_leaf) if of_section >= NEAR and (of_leaf >= NEAR or shortened) else None


def _places(name: str, names: Sequence[str]) -> list[str]:
    """Return the same name in other sections."""
    return [x for x in names if _section(x) not in ("", _section(name)) and _parts(x)[1] == _parts(name)[1]]


def _section(name: str) -> str:
    return _parts(name)[0]


def _parts(name: str) -> tuple[str, str]:
    """Return (section, name) of a setting; the section is empty if there is none."""
    plain = name.lstrip("-").replace("-", "_").lower()
    section, _, rest = plain.partition(".")
    known = rest and difflib.get_close_matches(section, SECTIONS, n=1, cutoff=NEAR)
    return (section, rest) if known else ("", plain)
