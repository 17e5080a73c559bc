"""One process a chunk: who is refused, who takes over, and why no clock matters."""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from ace_counterfactuals.core.base.notices import host_name
from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.locks import Locked, birth, hold, holders


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "PATIENCE", 0.5)


def write_lock(folder, **changes):
    """A lock as some process would have left it."""
    values = {"host": host_name(), "pid": os.getpid(), "born": birth(os.getpid()), "since": "2026-01-01T00:00:00Z"}
    values |= {"chunk": 0, "chunks": 1, "flock": False, "beat": "000000000000", **changes}
    path = folder / f"chunk-{values['chunk']}-of-{values['chunks']}.lock"
    path.write_text(json.dumps(values))
    return path


def taken_over(folder, notes, **chunk):
    with hold(folder, **chunk):
        pass
    return "taking over" in notes.text


def test_a_chunk_is_held_by_one_and_free_again_afterwards(tmp_path):
    with hold(tmp_path, 1, 3):
        assert [(holder.pid, holder.chunk, holder.chunks) for holder in holders(tmp_path)] == [(os.getpid(), 1, 3)]
        with (
            pytest.raises(Locked, match=f"process {os.getpid()} on .* since 20.* .chunk 1 of 3."),
            hold(tmp_path, 1, 3),
        ):
            pass
    assert holders(tmp_path) == []
    with hold(tmp_path, 1, 3):
        pass


def test_it_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    assert holders(tmp_path) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "overlap"),
    [
        ((0, 1), (2, 3), True),  # the whole overlaps with every part
        ((0, 2), (1, 2), False),
        ((1, 2), (3, 4), True),  # 3, 7, 11 are odd
        ((0, 2), (3, 4), False),
        ((0, 2), (1, 3), True),  # 4
        ((5, 6), (2, 3), True),
        ((5, 6), (1, 3), False),
    ],
)
def test_chunks_overlap_where_an_index_is_in_both(tmp_path, mine, theirs, overlap):
    assert overlap == bool(set(range(mine[0], 99, mine[1])) & set(range(theirs[0], 99, theirs[1])))
    with hold(tmp_path, *theirs):
        if overlap:
            with pytest.raises(Locked), hold(tmp_path, *mine):
                pass
        else:
            with hold(tmp_path, *mine):
                assert len(holders(tmp_path)) == 2


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(tmp_path, notes):
    imports = "import os, pathlib\nfrom ace_counterfactuals.core.runs.locks import hold\n"
    script = f"{imports}with hold(pathlib.Path({str(tmp_path)!r})): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert len(holders(tmp_path)) == 1
    assert taken_over(tmp_path, notes)


def test_without_flock_a_live_process_is_known_by_its_number_and_birth(tmp_path):
    write_lock(tmp_path)
    with pytest.raises(Locked), hold(tmp_path):
        pass


@pytest.mark.parametrize("changes", [{"pid": 99999999, "born": None}, {"born": -1}, {"flock": True}])
def test_a_dead_process_of_this_host_is_known_at_once(tmp_path, notes, changes, monkeypatch):
    """Its number is nobody's, or another's since; or it had the file by flock, and has not any more."""
    monkeypatch.setattr(locks, "listen", lambda watched, _: iter(watched))  # who is listened to is found alive
    write_lock(tmp_path, **changes)
    assert taken_over(tmp_path, notes)


def test_a_silent_process_of_another_host_is_taken_over_after_a_while(tmp_path, notes):
    write_lock(tmp_path, host="node7", chunk=1, chunks=2)
    with hold(tmp_path):
        pass
    printed = notes.text
    assert "listening for up to 0.5 s" in printed and "taking over from process" in printed and "node7" in printed


def test_the_flock_of_a_crashed_host_does_not_keep_its_lock(tmp_path, notes):
    """The file server may take a while to notice."""
    with open(write_lock(tmp_path, host="node7", flock=True), "rb") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        assert taken_over(tmp_path, notes)


def beating(path, stop):
    beat = 0
    while not stop.wait(0.02):
        beat += 1
        path.write_text(re.sub(r'"beat": "\d+"', f'"beat": "{beat:012d}"', path.read_text()))


def test_a_process_of_another_host_whose_heart_beats_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 30)
    path, stop = write_lock(tmp_path, host="node7"), threading.Event()
    heart = threading.Thread(target=beating, args=(path, stop))
    heart.start()
    try:
        with pytest.raises(Locked, match="on node7 since 2026-01-01T00:00:00Z"), hold(tmp_path):
            pass
    finally:
        stop.set()
        heart.join()


def test_a_live_process_whose_lock_file_cannot_be_understood_keeps_its_chunk(tmp_path, monkeypatch):
    """Such as one of a later version, which keeps more in it."""
    monkeypatch.setattr(locks, "PATIENCE", 30)
    path, stop = write_lock(tmp_path, host="node7", colour="red"), threading.Event()
    heart = threading.Thread(target=beating, args=(path, stop))
    heart.start()
    try:
        with pytest.raises(Locked, match="on an unknown host"), hold(tmp_path):
            pass
    finally:
        stop.set()
        heart.join()


def test_the_heart_of_a_holder_beats_in_the_file_that_it_holds(tmp_path):
    with hold(tmp_path) as lock:
        seen = holders(tmp_path)[0]
        deadline = time.monotonic() + 30
        while not seen.beats():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.check()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_neither_kills_nor_keeps(tmp_path, notes, monkeypatch, jump):
    real = time.time
    with hold(tmp_path):
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        os.utime(holders(tmp_path)[0].path, (0, 0))
        with pytest.raises(Locked), hold(tmp_path):
            pass
    write_lock(tmp_path, host="node7", since="2999-01-01T00:00:00Z")
    assert taken_over(tmp_path, notes)


def test_of_many_newcomers_at_once_exactly_one_gets_the_chunk(tmp_path, notes):
    write_lock(tmp_path, pid=99999999, born=None)
    outcomes, ready, done = [], threading.Barrier(8), threading.Barrier(8)

    def come(i):
        ready.wait(60)
        try:
            with hold(tmp_path, *((0, 1), (1, 2))[i % 2]):
                outcomes.append("held")
                done.wait(60)
        except Locked:
            outcomes.append("refused")
            done.wait(60)

    newcomers = [threading.Thread(target=come, args=(i,)) for i in range(8)]
    for newcomer in newcomers:
        newcomer.start()
    for newcomer in newcomers:
        newcomer.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_without_flock_never_two_newcomers_get_the_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "flock", lambda *_: None)
    with hold(tmp_path):
        with pytest.raises(Locked), hold(tmp_path):
            pass
        with pytest.raises(Locked), hold(tmp_path, 1, 2):
            pass


def test_a_process_that_slept_for_too_long_finds_that_it_was_taken_for_dead(tmp_path):
    with hold(tmp_path) as lock:
        lock.path.unlink()
        with hold(tmp_path) as other:
            with pytest.raises(Locked, match="another process has taken over"):
                lock.check()
            lock.release()
            other.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"beat": 1}'])
def test_a_lock_file_that_says_nothing_is_listened_to_and_then_removed(tmp_path, notes, content):
    (tmp_path / "chunk-0-of-1.lock").write_bytes(content)
    assert taken_over(tmp_path, notes)
