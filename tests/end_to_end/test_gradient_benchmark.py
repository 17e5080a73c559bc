"""The benchmark of gradients sets each way beside the original's."""

import pytest

from benchmarks import gradient


@pytest.mark.slow
def test_each_way_and_the_originals_are_timed_and_their_calls_counted(capsys, monkeypatch):
    ways = gradient.ways
    monkeypatch.setattr(
        gradient, "ways", lambda segments: {key: ways(segments)[key] for key in ("checkpoint 1", "one step")}
    )
    gradient.main(["--steps", "2", "--size", "32", "--channels", "32", "--runs", "1"])
    head, *lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 2")]
    assert head == "32 px, 32 channels, batch 1, cpu float32" and "MiB for its backward pass" in lines[0]
    calls = {way: (int(ours), int(theirs)) for _, way, _, _, _, ours, theirs, *_ in rows}
    assert calls == {"checkpoint 1": (3, 5), "one step": (1, 2)}
    assert all(float(row[4]) > 0 and float(row[9]) > 0 for row in rows)
