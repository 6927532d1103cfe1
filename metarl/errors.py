"""What goes wrong, sorted by whose move it is, and how names that are almost right are found."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

from metarl.envs.text import one_line

NEAR, SURE = 0.66, 0.8
"""Least ratio (difflib's) of a name to what it is taken for: `pop` is `ppo`, `walk` is no `watch`; and to what it is
taken for although another section has the very name."""
SECTIONS = ("agent", "family", "training", "evaluation", "tracking")
"""Of the configuration, which stand in front of a setting's name."""
FEW, MANY = 8, 30
"""Names that are listed although the one that was meant is known; and at most."""
LONG = 80
"""Letters of a name beyond which it is no name, and what is near to its beginning is near to it."""
LONGEST = 500
"""Letters of a message: whatever it is about, it is read on a terminal."""


class UsageError(ValueError):
    """The caller's mistake; the command line exits with 2."""


class RunError(RuntimeError):
    """A fault at run time, said in words that need no traceback; the command line exits with 1."""


@contextlib.contextmanager
def usage_errors(what: str) -> Iterator[None]:
    """Turn what is raised while something is being built from the caller's values into `UsageError`.

    `envs` and `agents` raise ValueError, and files that are not there FileNotFoundError. what: the section of the
    configuration, named in front of a message that does not name it.
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


NO_MEMORY = "it asks for more memory than there is"


def out_of_memory(error: BaseException) -> bool:
    """Whether NumPy or torch could not allocate what was asked for."""
    words = ("not enough memory", "out of memory", "allocate memory")
    torchs = isinstance(error, RuntimeError) and any(said in str(error) for said in words)
    return torchs or isinstance(error, MemoryError)


def describe(error: BaseException) -> str:
    """An exception as one line of words, of bounded length, without anything that a terminal obeys."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return one_line(f"{where}{error.strerror}", LONGEST)
    return one_line(str(error), LONGEST) or type(error).__name__


def nearest(name: str, valid: Iterable[str], otherwise: str = "") -> str:
    """What to say after an unknown name: where it is, or the nearest valid one; the valid ones where they are few or
    none is near.

    A name may have a section (`agent.inner_lr`) and dashes. otherwise: what to say instead of the list if none is near.
    """
    name, names = name[:LONG], list(valid)
    close, places = _closest(name, names), _places(name, names)
    if places and not (_section(name) and close and (_likeness(name, close) or 0) >= SURE):
        sections = list(dict.fromkeys(map(_section, places)))
        return f"; {' and '.join(sections)} {'has' if len(sections) == 1 else 'have'} it: {', '.join(places)}"
    if close is None and otherwise:
        return otherwise
    hint = f"; did you mean {close!r}?" if close else ""
    if close and len(names) > FEW:
        return hint
    listed = [other for other in names if _section(other) == _section(name)] or names
    more = f" and {len(listed) - MANY} more" if len(listed) > MANY else ""
    return f"{hint} Valid: {', '.join(listed[:MANY])}{more}" if hint else f"; valid: {', '.join(listed[:MANY])}{more}"


def _closest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant: mistyped, cut short, or with a word left out; None if there is none."""
    meant = [(likeness, other) for other in names if (likeness := _likeness(name, other)) is not None]
    return max(meant, key=lambda pair: pair[0])[1] if meant else None


def _likeness(name: str, other: str) -> float | None:
    """In [0, 1]; None if the one is not meant by the other. A section that is left out may be any."""
    (asked_section, asked), (section, leaf) = _parts(name), _parts(other)
    of_section = difflib.SequenceMatcher(None, asked_section, section).ratio() if asked_section and section else 1.0
    of_leaf = difflib.SequenceMatcher(None, asked, leaf).ratio()
    shortened = (len(asked) > 2 and leaf.startswith(asked)) or set(asked.split("_")) <= set(leaf.split("_"))
    return min(of_section, of_leaf) if of_section >= NEAR and (of_leaf >= NEAR or shortened) else None


def _places(name: str, names: Sequence[str]) -> list[str]:
    """Names of other sections that are the same but for the section."""
    return [x for x in names if _section(x) not in ("", _section(name)) and _parts(x)[1] == _parts(name)[1]]


def _section(name: str) -> str:
    return _parts(name)[0]


def _parts(name: str) -> tuple[str, str]:
    """Section and name of a setting; of anything else nothing and the name."""
    plain = name.lstrip("-").replace("-", "_").lower()
    section, _, rest = plain.partition(".")
    known = rest and difflib.get_close_matches(section, SECTIONS, n=1, cutoff=NEAR)
    return (section, rest) if known else ("", plain)
