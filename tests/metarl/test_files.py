"""Folders that are made and stops that are asked for: one function each for the whole of metarl."""

import errno
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metarl.errors import RunError, UsageError
from metarl.files import fresh_folder, make_folder, write
from metarl.runs.interrupt import stop_on_signals


def test_a_fresh_folder_takes_the_first_free_number(tmp_path):
    names = [fresh_folder(tmp_path / "new" / "report", "--output").name for _ in range(3)]
    assert names == ["report", "report_2", "report_3"]
    (tmp_path / "new" / "report_2").rmdir()
    assert fresh_folder(tmp_path / "new" / "report", "--output").name == "report_2"


def test_of_processes_that_write_a_file_at_once_one_is_kept_whole(tmp_path):
    path, contents = tmp_path / "study.json", [letter * 2**20 for letter in (b"a", b"b", b"c")]
    children = []
    for content in contents:
        children.append(os.fork())
        if not children[-1]:
            status = 1
            try:
                for _ in range(20):
                    write(path, content)
                    assert path.read_bytes() in contents
                status = 0
            finally:
                os._exit(status)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["study.json"]


def test_two_threads_never_get_the_same_fresh_folder(tmp_path):
    barrier = threading.Barrier(8)

    def make(_):
        barrier.wait()
        return [fresh_folder(tmp_path / "run", "--runs-dir") for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        made = [folder for folders in pool.map(make, range(8)) for folder in folders]
    assert len(set(made)) == len(made) == len(list(tmp_path.iterdir())) == 160


@pytest.mark.parametrize("make", [make_folder, fresh_folder])
def test_a_folder_that_cannot_be_made_names_the_option(tmp_path, make):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^cannot make .*/file/run: .*; choose another --output$"):
        make(tmp_path / "file" / "run", "--output")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"^cannot make .*/link/run: .*; choose another --output$"):
        make(tmp_path / "link" / "run", "--output")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_or_fails_is_no_mistake_of_the_user(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(RunError, match=r"^cannot make .*/run: .*; choose another --output$"):
        make_folder(tmp_path / "run", "--output")


def test_a_folder_that_must_be_new_is_not_made_twice(tmp_path):
    make_folder(tmp_path / "run", "--runs-dir", exist_ok=False)
    make_folder(tmp_path / "run", "--runs-dir")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "run", "--runs-dir", exist_ok=False)


def test_the_first_signal_asks_for_a_stop_and_the_second_does_what_it_did_before():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with stop_on_signals(signal.SIGTERM) as stop:
            assert not stop.now()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.now() and not seen
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_worker_stops_without_its_parent():
    with stop_on_signals(signal.SIGTERM, parent=os.getppid()) as stop:
        assert not stop.now()
    with stop_on_signals(signal.SIGTERM, parent=os.getpid()) as stop:
        assert stop.now() and not stop.requested
