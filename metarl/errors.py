"""What goes wrong, sorted by whose move it is, and how names that are almost right are found."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


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
    except (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        message = describe(error)
        raise UsageError(message if message.startswith(what) else f"{what}: {message}") from error


def describe(error: BaseException) -> str:
    """An exception as one line of words."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, valid: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest valid one, and all of them where they are few or none is near."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return hint if close and len(names) > 8 else f"{hint or ';'} Valid: {', '.join(names)}"
