"""The cost benchmark counts what each attack takes."""

import pytest

from benchmarks import cost
from benchmarks.trial import read_rows

KEPT = "chain of three, deep features kept"


@pytest.mark.slow
def test_calls_are_counted_and_what_is_there_is_not_computed_again(tmp_path, capsys):
    methods = [
        "chain",
        cost.ORIGINAL,
        "one step",
        "one step, a student",
        "chain of three",
        KEPT,
        "one step, ends at 0.95",
    ]
    words = ["--photographs", "1", "--iterations", "4", "--output", str(tmp_path), "--methods", *methods]
    cost.main(words)
    rows = read_rows(tmp_path / "cost.csv")
    calls = {(row["method"], row["iterations"]): (float(row["forward"]), float(row["backward"])) for row in rows}
    refinement = 2
    assert calls["chain", "4"] == (2 * 4 + refinement, 2 * 4) and calls["chain", "1"] == (2 + refinement, 2)
    assert calls[cost.ORIGINAL, "4"] == calls["chain", "4"]
    assert calls["one step", "4"] == (4 + refinement, 4)
    assert calls["one step, a student", "4"] == (1 + refinement, 1)
    assert calls["one step, ends at 0.95", "4"] <= (4 + refinement, 4)
    work = {row["method"]: float(row["GFLOP"]) for row in rows if row["iterations"] == "4"}
    assert 0.4 * work[KEPT] < 0.4 * work["chain of three"] < work[KEPT]
    assert 0.4 * work["one step"] < work["one step, a student"] < 0.6 * work["one step"]  # 4 of 10 calls, and 6 small
    assert (tmp_path / "cost.png").stat().st_size and "| chain | 4 | 10 | 8 |" in (tmp_path / "cost.md").read_text()
    capsys.readouterr()
    cost.main(words)
    assert " s\n" not in capsys.readouterr().out
