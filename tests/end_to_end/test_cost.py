"""The cost benchmark counts what each attack takes."""

import pytest

from benchmarks import cost
from benchmarks.trial import read_rows


@pytest.mark.slow
def test_calls_are_counted_and_what_is_there_is_not_computed_again(tmp_path, capsys):
    methods = ["chain", cost.ORIGINAL, "one step", "one step, ends at 0.95"]
    words = ["--photographs", "1", "--iterations", "3", "--output", str(tmp_path), "--methods", *methods]
    cost.main(words)
    rows = read_rows(tmp_path / "cost.csv")
    calls = {(row["method"], row["iterations"]): (float(row["forward"]), float(row["backward"])) for row in rows}
    refinement = 2
    assert calls["chain", "3"] == (2 * 3 + refinement, 2 * 3) and calls["chain", "1"] == (2 + refinement, 2)
    assert calls[cost.ORIGINAL, "3"] == calls["chain", "3"]
    assert calls["one step", "3"] == (3 + refinement, 3)
    assert calls["one step, ends at 0.95", "3"] <= (3 + refinement, 3)
    assert (tmp_path / "cost.png").stat().st_size and "| chain | 3 | 8 | 6 |" in (tmp_path / "cost.md").read_text()
    capsys.readouterr()
    cost.main(words)
    assert " s\n" not in capsys.readouterr().out
