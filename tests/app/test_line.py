"""The line of computations: one at a time, in order, each for as long as somebody watches."""

import threading
import time

import pytest

from ace_counterfactuals.core.app import line as lines
from ace_counterfactuals.core.app.line import Full, Line


@pytest.fixture
def opened():
    """Makes a line, and closes it."""
    made = []

    def make(do, drop=lambda result: None):
        made.append(Line(do, drop))
        return made[-1]

    yield make
    for line in made:
        line.close()


def wait(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_twenty_that_ask_at_once_are_served_in_order_and_one_at_a_time(opened):
    served, at_once, go = [], [], threading.Event()

    def do(job):
        go.wait()
        at_once.append(sum(other.state == "running" for other in line.jobs.values()))
        served.append(job.asked)

    line = opened(do)
    jobs = [line.ask(number) for number in range(20)]
    assert [line.place(job) for job in jobs] == list(range(20))
    go.set()
    wait(lambda: all(job.state == "done" for job in jobs))
    assert served == list(range(20)) and set(at_once) == {1}


def test_one_that_runs_stops_at_its_next_check_and_one_that_waits_is_never_begun(opened):
    begun = []

    def do(job):
        begun.append(job.asked)
        while True:
            job.check()
            time.sleep(0.001)

    line = opened(do)
    running, waiting = line.ask("running"), line.ask("waiting")
    wait(lambda: running.state == "running")
    line.stop(waiting)
    line.stop(running)
    wait(lambda: running.over)
    assert (running.state, waiting.state, begun) == ("cancelled", "cancelled", ["running"])


def test_a_closed_tab_frees_the_machine_and_one_that_is_open_keeps_it(opened, monkeypatch):
    monkeypatch.setattr(lines, "GRACE", 0.05)

    def do(job):
        for _ in range(100):
            job.check()
            time.sleep(0.005)

    line = opened(do)
    watched, left = line.ask("watched"), line.ask("left")
    watched.watch()
    wait(lambda: watched.state == "done" and left.over)
    assert left.state == "cancelled"


def test_the_next_is_computed_after_one_that_fails(opened):
    def do(job):
        if job.asked == "bad":
            raise RuntimeError("out of memory")
        return job.asked

    line = opened(do)
    bad, good = line.ask("bad"), line.ask("good")
    wait(lambda: good.state == "done")
    assert (bad.state, bad.error, good.result) == ("failed", "out of memory", "good")


def test_what_is_dropped_is_freed_and_old_results_are_dropped(opened, monkeypatch):
    monkeypatch.setattr(lines, "KEPT", 2)
    freed = []
    line = opened(lambda job: job.asked, freed.append)
    for number in range(4):
        job = line.ask(number)
        wait(lambda job=job: job.state == "done")
    assert freed == [0] and len(line.jobs) == 3
    line.drop(job.id)
    assert freed == [0, 3]


def test_one_that_is_dropped_while_it_runs_has_no_place_and_its_result_is_freed(opened):
    go, freed = threading.Event(), []
    line = opened(lambda job: go.wait() and job.asked, freed.append)
    job = line.ask("asked")
    wait(lambda: job.state == "running")
    line.drop(job.id)
    assert line.place(job) == 0
    go.set()
    wait(lambda: freed == ["asked"])


def test_a_line_that_is_full_says_so(opened, monkeypatch):
    monkeypatch.setattr(lines, "WAITING", 2)
    go = threading.Event()
    line = opened(lambda job: go.wait())
    first = line.ask(0)
    wait(lambda: first.state == "running")
    line.ask(1), line.ask(2)
    with pytest.raises(Full, match="try again later"):
        line.ask(3)
    go.set()
