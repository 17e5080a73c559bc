"""The benchmark of a training step times both loops."""

import re

import pytest

from benchmarks.training_step import main


@pytest.mark.slow
def test_both_loops_take_steps_that_are_timed(capsys):
    main(["--size", "8", "--channels", "32", "--mult", "1,1", "--batch", "2", "--runs", "1"])
    printed = capsys.readouterr().out
    ours, theirs, ratio = (
        float(re.search(rf"\| {name} \| ([\d.]+)", printed)[1]) for name in ("ours", "published", "ours / published")
    )
    assert ours > 0 and theirs > 0 and ratio == pytest.approx(ours / theirs, rel=0.1)
