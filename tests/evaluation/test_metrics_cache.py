"""The cache of features: what is in it comes back, and what is broken is computed anew."""

import errno
import hashlib

import numpy as np
import pytest

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.evaluation.cache import Store, joined

KEYS = [hashlib.sha256(bytes([i])).digest() for i in range(5)]
ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)


@pytest.fixture
def filled(tmp_path):
    store = Store(tmp_path, "toy", {"sha256": "a"})
    store.add(KEYS[:2], ROWS[:2])
    store.add(KEYS[2:], ROWS[2:])
    return store


def again(store: Store, **what) -> Store:
    return Store(store.path.parent, "toy", what or {"sha256": "a"})


def test_rows_come_back_in_the_order_that_is_asked(filled):
    for store in (filled, again(filled)):
        assert store.rows(KEYS[::-1]).tolist() == ROWS[::-1].tolist() and store.width == 3


def test_what_json_writes_otherwise_is_found_again(tmp_path, notes):
    for known in (False, True):
        store = Store(tmp_path, "toy", {"classes": ("boot", "coat"), "query": None})
        assert (KEYS[0] in store) == known
        store.add(KEYS[:1], ROWS[:1])
    assert notes.text == ""


def test_another_network_has_another_file(filled):
    assert KEYS[0] in filled and KEYS[0] not in again(filled, sha256="b")


def test_a_file_that_is_cut_off_keeps_its_whole_rows(filled, notes):
    data = filled.path.read_bytes()
    filled.path.write_bytes(data[:-5])
    store = again(filled)
    assert [key in store for key in KEYS] == [True] * 4 + [False]
    assert "cut off; its 4 whole rows are kept" in notes.text
    store.add(KEYS[4:], ROWS[4:])
    assert filled.path.read_bytes() == data


def test_rows_that_two_evaluations_added_at_the_same_time_are_all_kept(filled, notes):
    other = again(filled)
    late = [hashlib.sha256(bytes([9 + i])).digest() for i in range(2)]
    for store in (filled, other):
        store.add(late, ROWS[:2])
    other.add([bytes(32)], ROWS[4:])
    store = again(filled)
    assert store.rows([*late, bytes(32)]).tolist() == ROWS[[0, 1, 4]].tolist() and notes.text == ""


def test_rows_are_kept_for_the_evaluation_where_the_disk_is_full_and_that_is_told_once(filled, notes, monkeypatch):
    before = filled.path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(guard, "open_to_write", full)
    late = [hashlib.sha256(bytes([9 + i])).digest() for i in range(2)]
    for key, row in zip(late, ROWS, strict=False):
        filled.add([key], row[None])
    assert filled.rows([late[1], KEYS[4], late[0]]).tolist() == ROWS[[1, 4, 0]].tolist() and late[0] in filled
    assert filled.path.read_bytes() == before and notes.text.count("No space left on device") == 1


@pytest.mark.parametrize("place", [3, 200])
def test_a_damaged_file_is_written_anew(place, filled, notes):
    """Once in its head, once in a row."""
    data = bytearray(filled.path.read_bytes())
    data[place] ^= 255
    filled.path.write_bytes(data)
    store = again(filled)
    assert not store.places and "of another version or damaged" in notes.text
    store.add(KEYS[:1], ROWS[:1])
    assert again(filled).rows(KEYS[:1]).tolist() == ROWS[:1].tolist()


def test_a_file_of_another_version_is_written_anew(filled, notes, monkeypatch):
    monkeypatch.setattr("ace_counterfactuals.core.evaluation.cache.VERSION", 99)
    store = again(filled)
    assert store.path == filled.path and KEYS[0] not in store and "another version" in notes.text
    store.add(KEYS[:1], ROWS[:1])
    assert KEYS[0] in again(filled)


def test_an_empty_file_is_written_anew(filled):
    filled.path.write_bytes(b"")
    assert not again(filled).places


def test_the_key_of_a_pair_goes_by_both_pictures_and_their_order():
    assert joined(KEYS[:1]) == KEYS[0]
    assert len({joined(KEYS[:2]), joined(KEYS[1::-1]), KEYS[0], KEYS[1]}) == 4
