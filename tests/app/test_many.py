"""The app under many questions: all are answered in order, and memory stays flat."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from tests.support.app_cases import ask, events, served, toy_studio
from tests.support.toys import Workshop

pytestmark = pytest.mark.slow
CLIENTS = 20
BEGUN, QUESTIONS = 60, 200  # by the first, as many results are kept as ever will be


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_twenty_clients_at_once_are_all_answered_in_order(tmp_path):
    with served(toy_studio(Workshop(tmp_path), batch_size=None), tmp_path) as client:
        answered, do = [], client.line.do
        client.line.do = lambda job: (answered.append(job.id), do(job))[1]
        with ThreadPoolExecutor(CLIENTS) as pool:
            keys = [*pool.map(lambda number: ask(client, flags={"seed": str(number)}), range(CLIENTS))]
            last = [told[-1] for told in pool.map(lambda key: events(client, key), keys)]
    assert [told["state"] for told in last] == ["done"] * CLIENTS
    assert answered == sorted(keys)


@pytest.mark.long
def test_memory_is_flat_over_two_hundred_explanations_of_three_iterations(tmp_path):
    studio = toy_studio(Workshop(tmp_path), batch_size=None)
    with served(studio, tmp_path) as client:
        for number in range(QUESTIONS):
            last = events(client, ask(client, flags={"attack_iterations": "3", "seed": str(number)}))[-1]
            assert last["state"] == "done"
            if number == BEGUN:
                before = resident()
        assert resident() < 1.2 * before
        assert len(client.line.jobs) <= 62
