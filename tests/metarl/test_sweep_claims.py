"""Claims on the variants of a sweep."""

import os
import subprocess
import sys
import time

from metarl.runs import claims as sweep_claims

HOLD = "import sys, time; from metarl.runs import claims as c; from pathlib import Path;"
HOLD += "held = c.claim(Path(sys.argv[1]), 7, 3); print('held' if held else 'no', flush=True); time.sleep(600)"


def test_a_claim_holds_as_long_as_its_process_lives(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert sweep_claims.claim(tmp_path, 7, 3) is None
    assert sweep_claims.running(tmp_path, 7)["pid"] == process.pid
    assert sweep_claims.deaths(tmp_path, 7, 3) == 0
    process.kill()
    process.wait()
    assert sweep_claims.running(tmp_path, 7) is None
    assert (sweep_claims.deaths(tmp_path, 7, 3), sweep_claims.deaths(tmp_path, 7, 4)) == (1, 0)
    mine = sweep_claims.claim(tmp_path, 7, 3)
    assert mine is not None and mine.path.name == "0007.2" and not mine.lost()
    assert sweep_claims.claim(tmp_path, 7, 3) is None  # not even in the same process
    mine.release()
    assert sweep_claims.deaths(tmp_path, 7, 3) == 1  # to stop is not to die
    assert sweep_claims.claim(tmp_path, 7, 3).path.name == "0007.3"


def test_another_machine_is_believed_until_it_is_silent(tmp_path, monkeypatch):
    held = sweep_claims.claim(tmp_path, 0, 0)
    monkeypatch.setattr(sweep_claims, "machine", lambda: "another kernel")
    assert sweep_claims.claim(tmp_path, 0, 0) is None
    past = time.time() - sweep_claims.STALE_S - 1
    os.utime(held.path, (past, past))
    taken = sweep_claims.claim(tmp_path, 0, 0)
    assert taken is not None and held.lost() and not taken.lost()


def test_of_many_that_claim_at_once_one_gets_it(tmp_path):
    script = HOLD.replace("time.sleep(600)", "sys.stdin.read()")
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.stdout.readline().strip() for process in crowd]
    for process in crowd:
        process.communicate()
    assert sorted(said) == ["held", "no", "no", "no"]
