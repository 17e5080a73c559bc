"""Pictures are written while the next ones are attacked, in their order, and nothing is lost of it."""

import threading

import pytest

from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.writing import AHEAD, Writer
from tests.support.toys import Workshop, tree


def writing():
    """How many threads of a writer there are; others come and go by themselves."""
    return sum(thread.name.startswith("write") for thread in threading.enumerate())


class Full(OSError):
    pass


def fail():
    raise Full("no space")


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_work_is_done_in_its_order_by_a_thread_that_ends_with_it():
    done, threads = [], writing()
    with Writer() as writer:
        for i in range(2 * AHEAD):
            writer.give(lambda i=i: done.append((i, threading.current_thread().name)))
    assert [i for i, _ in done] == [*range(2 * AHEAD)] and len({name for _, name in done}) == 1
    assert writing() == threads


def test_no_more_than_so_much_waits():
    gate, given = threading.Event(), []
    with Writer() as writer:

        def give():
            for i in range(AHEAD + 2):
                writer.give(gate.wait)
                given.append(i)

        giver = threading.Thread(target=give)
        giver.start()
        giver.join(0.2)
        assert len(given) == AHEAD
        gate.set()
        giver.join()


def test_after_an_error_nothing_is_done_and_it_is_raised():
    done, threads = [], writing()
    with pytest.raises(Full), Writer() as writer:
        writer.give(fail)
        writer.give(lambda: done.append(1))
    assert not done and writing() == threads


def test_what_was_given_is_done_when_its_user_fails():
    done = []
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer.give(lambda: done.append(1))
        raise KeyboardInterrupt
    assert done == [1]


def test_a_batch_is_attacked_while_the_one_before_is_written(workshop, monkeypatch):
    begun, attack, write = threading.Event(), run_module.attacked, ResultFolder.write
    batches, waited = [], []

    def attacking(*given, **options):
        batches.append(1)
        if len(batches) == 2:
            begun.set()
        return attack(*given, **options)

    def writing(results, record, pictures):
        waited.append(begun.wait(30))
        write(results, record, pictures)

    monkeypatch.setattr(run_module, "attacked", attacking)
    monkeypatch.setattr(ResultFolder, "write", writing)
    workshop.run(num_samples=4)
    assert waited == [True] * 4


def test_a_picture_that_cannot_be_written_ends_the_run_and_its_attack_is_kept(workshop, monkeypatch):
    """As much of it as was: here its last iteration."""
    monkeypatch.setattr("ace_counterfactuals.core.runs.keeping.EVERY", 0.0)
    write, threads = ResultFolder.write, writing()

    def filling(results, record, pictures):
        if record.index == 3:
            raise OSError(28, "No space left on device", str(results.record(3)))
        write(results, record, pictures)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(ResultFolder, "write", filling)
        workshop.run()
    results = ResultFolder(workshop.output, "exp")
    assert [*results.read()[0]] == [0, 1, 2] and 2 in results.states()
    assert writing() == threads
    workshop.run()
    stopped = tree(workshop.output)
    workshop.run(overwrite=True)
    assert tree(workshop.output) == stopped and len(results.read()[0]) == 6
