"""The content of a report as a tree of blocks, and how it becomes one HTML page, or Markdown with files beside."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.reporting.report_figures import Picture

FIGURES, VIDEOS = "figures", "videos"
"""Folders beside report.md."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind = "text"


@dataclass(frozen=True)
class Remarks:
    """Lines that a reader must not miss: notes or warnings."""

    lines: Sequence[str]
    tone: str = "note"
    """note or warning."""
    kind = "remarks"


@dataclass(frozen=True)
class Table:
    """Cells by column, the first of a row being its head."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind = "table"


@dataclass(frozen=True)
class Gallery:
    """Figures, side by side where there is room."""

    pictures: Sequence[Picture]
    kind = "gallery"


@dataclass(frozen=True)
class Film:
    """An MP4."""

    name: str
    label: str
    caption: str
    mp4: bytes
    poster: bytes
    """A frame of it, JPEG: what is seen until it plays."""
    kind = "film"


@dataclass(frozen=True)
class Code:
    """Text as a machine reads it, folded away if it is long."""

    title: str
    text: str
    folded: bool = False
    kind = "code"


Block = Text | Remarks | Table | Gallery | Film | Code


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What links to it name."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    lead: str
    """What it is about, in a sentence."""
    sections: Sequence[Section]
    made: Mapping[str, Any]
    """Provenance of the report itself."""

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in their order."""
        return [p for s in self.sections for block in s.blocks if isinstance(block, Gallery) for p in block.pictures]

    @property
    def films(self) -> list[Film]:
        """All films, in their order."""
        return [block for s in self.sections for block in s.blocks if isinstance(block, Film)]


def html(page: Page) -> str:
    """One page that needs no other file and no script."""
    return _environment(autoescape=True).get_template("report.html").render(page=page)


def markdown(page: Page) -> str:
    """The same with figures and films as files in `FIGURES` and `VIDEOS` beside it."""
    text = _environment(autoescape=False).get_template("report.md").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def outline(page: Page) -> list[dict[str, Any]]:
    """The sections as plain types for JSON, figures and films by their files' names."""
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
        loader=jinja2.PackageLoader("metarl.reporting"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "escaped": escaped, "code": _code, "fence": _fence, "image": _image}
    environment.globals |= {"FIGURES": FIGURES, "VIDEOS": VIDEOS}
    return environment


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _image(picture: Picture) -> str:
    """A figure as the address that holds it."""
    kind, data = ("svg+xml", picture.svg) if picture.svg else ("png", picture.png)
    return f"data:image/{kind};base64,{_base64(data)}"


MARKUP = re.compile(r"[\\`*\[\]|<>#~&$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.")
"""What Markdown takes for markup, or for a link, anywhere in a line; a _ within a word is none."""
START = re.compile(r"^([-+=]|\d+(?=[.)]))")
"""What it takes for a list or a heading where a line starts."""


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    line = MARKUP.sub(lambda found: f"\\{found[0]}", _line(text))
    return START.sub(lambda start: f"\\{start[0]}" if start[0] in "-+=" else f"{start[0]}\\", line)


def _line(text: str) -> str:
    """One line, with a mark in place of what cannot be printed."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(text).split()))


def _code(text: str) -> str:
    """One line as Markdown shows code, whatever backticks are in it."""
    line = _line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _fence(text: str) -> str:
    """A fence of backticks that the text does not hold."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
