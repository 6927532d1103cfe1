"""A few of the fuzzer's inputs, and that its judge finds what it is there to find; `make fuzz` runs a thousand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = """
import os, sys, time
from pathlib import Path
from benchmarks import fuzz
from benchmarks.fuzz_inputs import Case

def grow():
    return len(bytes(2**40))

def spin():
    while True:
        pass

def die():
    os.abort()

def escape():
    print("\\x1b[2J")
    return 0

def write():
    Path(sys.argv[1], "outside").write_text("x")
    return 0

def say(text, status):
    print(text, file=sys.stderr)
    return status

deeds = {
    "traceback": lambda: say("Traceback (most recent call last):", 1),
    "fault": lambda: say("error: unexpected KeyError: 'a'", 1),
    "cut YAML": lambda: say("error: a is not valid YAML: line 1, column 1: found unexpected end of stream", 2),
    "two lines": lambda: say("error: a\\nb", 2),
    "long": lambda: say("error: " + "x" * 1000, 2),
    "no error": lambda: 2,
    "status": lambda: 3,
    "noise": lambda: say("hello", 0),
    "grow": grow, "spin": spin, "die": die, "escape": escape, "write": write,
    "right": lambda: say("error: a", 2), "fine": lambda: say("warning: a", 0),
}
fuzz.SECONDS = 1
for name, deed in deeds.items():
    folder = Path(sys.argv[1], name, "in")
    (folder.parent / "tmp").mkdir(parents=True)
    folder.mkdir()
    print(name, "|", fuzz.judge(Case("", [name]), fuzz.forked(deed, folder, limited=True)))
"""
FOUND = {
    "traceback": "a fault that was not expected",
    "fault": "a fault that was not expected",
    "cut YAML": "",
    "two lines": "2 lines in place of one error",
    "long": "a line without bound on stderr",
    "no error": "0 lines in place of one error",
    "status": "exit code 3",
    "noise": "a line on stderr that is no warning: hello",
    "grow": "exit code 70",
    "spin": "died of SIGXCPU",
    "die": "died of SIGABRT",
    "escape": "something that a terminal obeys",
    "write": "reached beyond its folder: open ",
    "right": "",
    "fine": "",
}


def python(environment, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.thorough
def test_the_judge_finds_what_is_planted(environment, tmp_path):
    pytest.importorskip("onnxruntime")
    said = dict(line.split(" | ", 1) for line in python(environment, "-c", PLANTED, str(tmp_path)).splitlines())
    assert said.keys() == FOUND.keys()
    for name, found in FOUND.items():
        assert said[name].startswith(found) and bool(said[name]) == bool(found), (name, said[name])


@pytest.mark.thorough
def test_a_few_broken_inputs_surprise_nobody(environment):
    pytest.importorskip("onnxruntime")
    said = python(environment, "-m", "benchmarks.fuzz", "--first", "118", "--inputs", "3", "--seed", "7")
    assert re.search(r"3 inputs of seed 7: 0 unexpected", said), said
