"""Names in a report are text, whatever is in them: in Markdown as in HTML."""

from __future__ import annotations

import html.parser

import pytest
from markdown_it import MarkdownIt

from metarl.reporting.columns import Table
from metarl.reporting.report.figures import Picture
from metarl.reporting.report.page import Code, Film, Gallery, Page, Remarks, Section, Text, markdown
from metarl.reporting.report.page import html as to_html

NAMES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a link](javascript:alert(1))",
    "![a picture](http://example.com/a.png)",
    "<http://example.com>",
    "http://example.com/a?b=c",
    "*bold* _it_ __init__ ~~gone~~",
    "a | b | c",
    "`code` ``more``",
    "&lt;b&gt; &#60;",
    "# heading",
    "- list",
    "+ list",
    "1. list",
    "2) list",
    "=== heading",
    "--- rule",
    "> quote",
    "\\*not bold\\*",
    "$x$ @somebody",
    "| | |",
)
MARKUP = {"html_inline", "html_block", "code_inline", "em_open", "s_open", "hr", "blockquote_open", "ordered_list_open"}


def page(name: str) -> Page:
    picture = Picture("figure", name, name, b"", "")
    blocks = (
        Text(name),
        Remarks([name]),
        Table(name, [name, "b"], [[name, name], ["c", name]]),
        Gallery([picture]),
        Film("film", name, name, b"", b""),
        Code(name, f"{name}\n```\n{name}"),
    )
    made = {"metarl": "1", "commit": "abc", "time": "today", "command": f"metarl report {name}"}
    return Page(name, name, [Section(name, blocks)], made)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_in_markdown(name):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown(page(name)))
    kinds = [child.type for token in tokens for child in (token, *(token.children or ()))]
    expected = {"em_open": 2, "code_inline": 1, "hr": 1}  # two captions, the command, the rule above it
    assert {kind: kinds.count(kind) for kind in kinds if kind in MARKUP} == expected
    assert kinds.count("link_open") == 1 and kinds.count("image") == 1  # the film, the figure
    assert kinds.count("heading_open") == 2 and kinds.count("bullet_list_open") == 1 and kinds.count("td_open") == 4
    shown = ("text", "text_special", "code_inline")
    inline = [token.children or () for token in tokens if token.type == "inline"]
    text = ["".join(child.content for child in children if child.type in shown) for children in inline]
    assert text.count(name) >= 8  # title, lead, heading, paragraph, table (1 + 3), captions
    assert f"Note: {name}" in text and f"{name} (MP4)" in text
    assert text[-1].endswith(f"by metarl report {name}.")
    assert [token.content for token in tokens if token.type == "fence"] == [f"{name}\n```\n{name}\n"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_in_html(name):
    class Reader(html.parser.HTMLParser):
        tags: tuple[str, ...] = ()
        seen = ""

        def handle_starttag(self, tag, attrs):
            self.tags += (tag,)

        def handle_data(self, data):
            self.seen += data

    reader, plain = Reader(), Reader()
    reader.feed(to_html(page(name)))
    plain.feed(to_html(page("name")))
    assert reader.tags == plain.tags
    assert reader.seen.count(name) >= plain.seen.count("name") - 3 and name in reader.seen


@pytest.mark.parametrize("name", ["a\nb", "a\r\n# b", "a\x1b[31mb", "a\u202eb", "a\x00b"])
def test_a_name_is_one_line_of_what_can_be_printed(name):
    text = markdown(page(name))
    outside = text.split("```")[0]
    assert all(c.isprintable() or c == "\n" for c in outside)
    assert not any(line.startswith("# b") for line in outside.splitlines())
