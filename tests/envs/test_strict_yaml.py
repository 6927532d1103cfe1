"""YAML from strangers: plain types or one short line, at once; files that are none are not waited for."""

import os
import re

import pytest

from metarl.envs.strict_yaml import MOST_LEVELS, MOST_VALUES, parse_yaml, quoted, read_file, read_yaml, to_yaml
from metarl.envs.text import escaped, one_line, shown

LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
REFUSED = {
    "a: !!int abc": "line 1, column 4: no int: 'abc'",
    "a: !!float abc": "no float: 'abc'",
    "a: !!bool abc": "no bool: 'abc'",
    "a: !!int ''": "no int: ''",
    "a: " + "9" * 5000: "no int: '999",
    "a: " + "9" * 20: "does not fit in 64 bits: '99999999999999999999'",
    "a: -0x1" + "0" * 16: "does not fit in 64 bits",
    "a: " + "[" * 2000: f"more than {MOST_LEVELS} levels",
    "a: " + "{a: " * 2000: f"more than {MOST_LEVELS} levels",
    "- " * 2000: f"more than {MOST_LEVELS} levels",
    LAUGHS: f"line 5, column 4: more than {MOST_VALUES:,} values",
    "a: &a [*a]": "column 8: an alias within what it stands for",
    "a: &a {b: {c: *a}}": "an alias within what it stands for",
    "a: *nowhere": "undefined alias 'nowhere'",
    "a: &a {b: 1}\nc: {<<: *a}": "line 2, column 5: a merge key (<<), which is not read",
    "a: !!timestamp abc": "the tag 'tag:yaml.org,2002:timestamp', which is not read",
    "a: !!set {b}": "which is not read",
    "a: !!binary zz": "which is not read",
    "a: !!python/object/apply:os.system [true]": "which is not read",
    "a: !mine b": "which is not read",
    "? [1, 2]\n: 3": "a list or a mapping as a key",
    "? {b: 1}\n: 3": "a list or a mapping as a key",
    "a: 1\na: 2": "line 2, column 1: key 'a' is given twice",
    "a: 1\nb: {c: 1, c: 2}": "key 'c' is given twice",
    'a: "\\e[2J"': r"control character: '\x1b[2J'",
    '"\\u202e": 1': r"control character: '\u202e'",
    'a: "\\ud800"': r"control character: '\ud800'",
    "a: \x00": "unacceptable character",
    "a: [": "line 1, column 5",
    "a: !!map 3": "expected a mapping",
    "--- a\n--- b": "another document",
    "&": "line 1",
    "=: 1": "which is not read",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_no_configuration_needs_is_one_short_line_that_says_where(text):
    with pytest.raises(ValueError, match=re.escape(REFUSED[text])) as caught:
        parse_yaml(text)
    message = str(caught.value)
    assert message.startswith("is not valid YAML: ") and "\n" not in message and len(message) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("08", 8), ("-012", -12), ("+3", 3), ("0x1F", 31), ("1_000", 1000), ("1:30", "1:30")),
        *(("1:30.5", "1:30.5"), ("-1.5", -1.5), ("1.0e-3", 0.001), (".5", 0.5), ("'010'", "010"), ("0", 0)),
    ],
)
def test_numbers_are_what_they_look_like(text, value):
    """YAML 1.1 takes 010 for eight and 1:30 for ninety."""
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


def test_what_is_written_is_read_as_it_was():
    data = {
        "08": "010",
        "time": "1:30",
        "date": "2024-01-01",
        "n": [8, 0.1, 1e-7, None, True, "true", "0x1", "1e5", ""],
    }
    for flow in (False, True):
        assert parse_yaml(to_yaml(data, flow)) == data


PLAIN = ("hip", "L_hip-2", ".*_foot", "a.b/c", "höp 2.0", r"a\.b")
ODD = ("1", "08", "1e3", "yes", "off", "null", "a, b", "hip: left", "r #knee", "it's", "[a]", "{b}", "*x", "&y", "- z")
ODDER = ("", " a", "?", "^(?:FL|FR)$", '"q"', "~", "2001-01-01", "!t", "a]", "'", "%", "@", "`", "a:", "|", ">", "\\")


@pytest.mark.parametrize("name", [*PLAIN, *ODD, *ODDER])
def test_a_name_is_quoted_where_it_would_be_read_as_anything_else(name):
    written = quoted(name)
    assert parse_yaml(f"feet: [{written}, {written}]\ngains:\n  {written}: [1, 2]\npose: {{{written}: 0.5}}") == {
        "feet": [name, name],
        "gains": {name: [1, 2]},
        "pose": {name: 0.5},
    }
    assert name not in PLAIN or written == name


def test_what_people_write_is_read():
    assert parse_yaml("a: 2001-99-99\nb: 2001-01-01\nc: 1e5") == {"a": "2001-99-99", "b": "2001-01-01", "c": "1e5"}
    assert parse_yaml("a: [1, -2.5, true, ~, x, 'y z', \"\\t\"]") == {"a": [1, -2.5, True, None, "x", "y z", "\t"]}
    assert parse_yaml("a: &a [1, {b: 2}]\nc: *a") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert parse_yaml(f"a: {2**63 - 1}\nb: {-(2**63)}") == {"a": 2**63 - 1, "b": -(2**63)}
    assert parse_yaml("!!str 1: |\n  ü ° π\n") == {"1": "ü ° π\n"}
    assert parse_yaml("") is None
    many = "\n".join(f"k{i}: [{i}, x]" for i in range(MOST_VALUES // 4 - 1))
    assert len(parse_yaml(many)) == MOST_VALUES // 4 - 1


def test_a_file_that_is_none_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device, no file"):
            read_yaml(path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_yaml(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "absent")
    (tmp_path / "long").write_bytes(b"a" * 11)
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_file(tmp_path / "long", 10)
    assert read_file(tmp_path / "long", 11) == b"a" * 11
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    with pytest.raises(ValueError, match="is not valid UTF-8: .* at byte 3"):
        read_yaml(tmp_path / "latin")


def test_text_from_outside_is_fit_to_be_shown():
    assert escaped("a\x1b[31mb\x9b\u202e\ud800ü\tc") == r"a\x1b[31mb\x9b\u202e\ud800ü" + "\tc"
    assert one_line(" a\n b\t\tc ", 10) == "a b c"
    cut = one_line("x" * 400 + "y" * 400, 100)
    assert len(cut) == 100 and cut.startswith("x" * 50) and cut.endswith("y" * 30) and "..." in cut
    assert shown("a\x1b'") == r'''"a\x1b'"''' and len(shown(["x" * 50] * 50)) == 80
    assert shown(10**5000) == "a whole number of 16610 bits"
