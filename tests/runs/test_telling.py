"""What a run tells while it goes on: where the attack in hand stands, and the first counterfactuals."""

import io
import sys

import pytest

from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.runs import run, tables
from ace_counterfactuals.core.runs.setup import load_denoiser
from ace_counterfactuals.core.runs.telling import Telling
from tests.support.toys import CLASSES, ToyClassifier, Workshop, pictures, toy_task, tree


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_terminal_the_bar_tells_the_iteration_of_what_is_in_hand(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    telling = Telling(3)
    telling.bar.mininterval = 0
    attack(judge(pictures(3), toy_task(attack_iterations=3)).aimed(), telling.see)
    assert "in hand: 3 after 2 of 3 iterations" in sys.stderr.getvalue()
    telling.bar.close()


@pytest.fixture
def drawn(monkeypatch):
    """How many pictures each sheet had."""
    drawn, draw = [], tables.draw_sheet

    def drawing(results, records, *others):
        drawn.append(len(records))
        draw(results, records, *others)

    monkeypatch.setattr(tables, "draw_sheet", drawing)
    return drawn


def test_the_sheet_of_a_new_experiment_grows_and_its_path_is_told_before(tmp_path, drawn, capsys):
    shop = Workshop(tmp_path)
    shop.run(batch_size=1, num_samples=5)
    assert drawn == [1, 2, 4, 5]
    assert f"the first counterfactuals, as they are done: {shop.results() / 'sheet.png'}" in capsys.readouterr().err
    del drawn[:]
    shop.run(batch_size=1, num_samples=6)
    assert drawn == [6] and "the first counterfactuals" not in capsys.readouterr().err


def test_without_stored_pictures_no_sheet_is_promised(tmp_path, drawn, capsys):
    Workshop(tmp_path).run(num_samples=1, save_images=False)
    assert not drawn and "counterfactuals, as" not in capsys.readouterr().err


def test_where_pictures_end_one_by_one_a_quarter_of_a_batch_is_written_together(tmp_path, monkeypatch):
    toy, shop, written = ToyClassifier(), Workshop(tmp_path), []
    toy.class_names, toy.num_outputs = CLASSES, len(CLASSES)
    monkeypatch.setattr(run, "load_networks", lambda config, query, device: (toy, load_denoiser(config, device)))
    write = run.write_found
    monkeypatch.setattr(run, "write_found", lambda *given: written.append(write(*given)) or written[-1])
    shop.run(batch_size=6, attack_stop_confidence=0.3, attack_iterations=12, attack_step=5)
    assert [len(records) for records in written] == [2, 2, 2]
    assert len([name for name in tree(shop.output) if "/records/" in name]) == 6


def test_what_is_done_at_once_is_drawn_once(tmp_path, drawn):
    Workshop(tmp_path).run(num_samples=2, batch_size=2)
    assert drawn == [2]
