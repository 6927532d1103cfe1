"""Content of a report as a tree of blocks, and its rendering as one HTML page or as Markdown with files beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.reporting.columns import Table
from metarl.reporting.report.figures import Picture

FIGURES, VIDEOS = "figures", "videos"
"""Folders beside report.md."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind = "text"


@dataclass(frozen=True)
class Remarks:
    """Notes or warnings."""

    lines: Sequence[str]
    tone: str = "note"
    """note or warning."""
    kind = "remarks"


@dataclass(frozen=True)
class Gallery:
    """Figures, side by side where there is room."""

    pictures: Sequence[Picture]
    kind = "gallery"


@dataclass(frozen=True)
class Film:
    """A film as MP4."""

    name: str
    label: str
    caption: str
    mp4: bytes
    poster: bytes
    """Frame that is shown until the film plays, JPEG."""
    kind = "film"


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, such as a command."""

    title: str
    text: str
    folded: bool = False
    """Whether it is hidden until the reader opens it."""
    kind = "code"


Block = Text | Remarks | Table | Gallery | Film | Code


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Name that links to it use."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    lead: str
    """One sentence on the content."""
    sections: Sequence[Section]
    made: Mapping[str, Any]
    """Provenance of the report itself."""

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in the order of the page."""
        return [p for s in self.sections for block in s.blocks if isinstance(block, Gallery) for p in block.pictures]

    @property
    def films(self) -> list[Film]:
        """All films, in the order of the page."""
        return [block for s in self.sections for block in s.blocks if isinstance(block, Film)]


def html(page: Page) -> str:
    """Return the page as HTML that needs no other file and no script."""
    return _environment(autoescape=True).get_template("report.html").render(page=page)


def markdown(page: Page) -> str:
    """Return the page as Markdown, with figures and films as files in `FIGURES` and `VIDEOS` beside it."""
    text = _environment(autoescape=False).get_template("report.md").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def outline(page: Page) -> list[dict[str, Any]]:
    """Return the sections as plain types for JSON, with figures and films by the names of their files."""
    return [{"title": s.title, "blocks": [_plain(block) for block in s.blocks]} for s in page.sections]


def _plain(block: Block) -> dict[str, Any]:
    match block:
        case Gallery():
            files = [{"file": f"{FIGURES}/{p.name}.png", "alt": p.alt, "caption": p.caption} for p in block.pictures]
            return {"kind": block.kind, "figures": files}
        case Film():
            return {"kind": block.kind, "file": f"{VIDEOS}/{block.name}.mp4", "caption": block.caption}
        case _:
            return {"kind": block.kind, **vars(block)}


def _environment(autoescape: bool) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metarl.reporting.report"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "escaped": escaped, "code": _code, "fence": _fence, "image": _image}
    environment.globals |= {"FIGURES": FIGURES, "VIDEOS": VIDEOS}
    return environment


def file_name(text: str) -> str:
    """Return a text as part of a file's name: letters and digits, with _ between them."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "x"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _image(picture: Picture) -> str:
    """Return a data URL of a figure."""
    kind, data = ("svg+xml", picture.svg) if picture.svg else ("png", picture.png)
    return f"data:image/{kind};base64,{_base64(data)}"


MARKUP = re.compile(r"[\\`*\[\]|<>#~&$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.")
"""Characters that Markdown reads as markup or a link anywhere in a line; a _ within a word is none."""
START = re.compile(r"^([-+=]|\d+(?=[.)]))")
"""Characters that Markdown reads as a list or a heading at the start of a line."""


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in a cell of a table too."""
    line = MARKUP.sub(lambda found: f"\\{found[0]}", _line(text))
    return START.sub(lambda start: f"\\{start[0]}" if start[0] in "-+=" else f"{start[0]}\\", line)


def _line(text: str) -> str:
    """Return text as one line, with a mark in place of characters that cannot be printed."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(text).split()))


def _code(text: str) -> str:
    """Return one line that Markdown shows as code, whatever backticks are in it."""
    line = _line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _fence(text: str) -> str:
    """Return a fence of backticks that does not occur in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
