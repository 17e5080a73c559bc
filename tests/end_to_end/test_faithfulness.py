"""The faithfulness benchmark: one attack seen at several strengths, its figures, its table and figure."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.models.classifiers import load_classifier
from benchmarks import faithfulness
from benchmarks.faithfulness import by_pair, draw, over_seeds, table
from benchmarks.trial import ask, open_bench, pre_explanations, read_rows, refined, with_settings, write_rows
from tests.support.toys import (
    CLASSES,
    SIDE,
    attack_config,
    sampling_config,
    toy_diffusion,
    toy_unet,
    write_classifier,
    write_pictures,
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    images = open_dataset("Folder", write_pictures(folder / "pictures", 12), image_size=SIDE)
    files = {name: write_classifier(folder / f"{name}.pt", seed=i) for i, name in enumerate("abc")}
    attacked = load_classifier(files["a"])
    settings = {"attack": attack_config(), "sampling": sampling_config(), "seed": 3}
    task = Task(classifier=attacked, denoiser=toy_unet(), diffusion=toy_diffusion(), **settings)
    seen = attacked(torch.stack([sample.image for sample in images])).argmax(1).tolist()
    right = next(e.label for e, label in zip(images.records, seen, strict=True) if e.label == label)
    return images, files, ask(images, task, [(CLASSES[right], CLASSES[right - 1])], count=1)


def test_only_photographs_that_the_classifier_gets_right_are_asked_about(workshop):
    images, _, batch = workshop
    labels = {entry.index: entry.label for entry in images.records}
    assert batch.prediction.tolist() == [labels[index] for index in batch.indices]
    assert not (batch.prediction == batch.target).any()


def test_too_few_photographs_are_refused(workshop):
    images, _, batch = workshop
    with pytest.raises(ValueError, match=r"boot: \d photographs are classified right, wanted 100"):
        ask(images, batch.task, [("boot", "coat")], count=100)


@pytest.mark.parametrize("changes", [{}, {"attack_joint": False}, {"attack_joint_shortcut": True}, {"dist_l1": 0.1}])
def test_an_attack_passes_through_the_results_of_shorter_ones(workshop, changes):
    batch = with_settings(workshop[2], attack=attack_config(**changes))
    for iterations, found in pre_explanations(batch, (1, 3)).items():
        attack = attack_config(**changes, attack_iterations=iterations)
        task = replace(batch.task, attack=attack, label_target=batch.target[0].item())
        alone = explain(batch.image, task, indices=batch.indices)
        assert torch.equal(found, alone.pre_explanation)
        assert torch.equal(refined(batch, found), alone.counterfactual)


def test_pictures_that_did_not_change_flip_nothing_and_transfer_to_nobody(workshop):
    images, files, batch = workshop
    bench = open_bench({name: files[name] for name in "bc"}, images, batch)
    several = batch.take([0, 0])
    row = bench.measure(several, several.image)
    assert row["flip"] == row["l1"] == row["n pooled"] == 0
    assert row["transfer pooled"] is None and row["flip low"] == 0 < row["flip high"]


def test_calls_of_the_unet_are_counted_by_method(workshop):
    sampling = sampling_config(timestep_respacing="10", sampling_time_fraction=0.5, refine_time_fraction=0.3)
    batch = with_settings(workshop[2], sampling=sampling, diffusion=toy_diffusion().respaced("10"))
    one_step = with_settings(batch, attack=attack_config(attack_filter="one-step"))
    plain = with_settings(batch, attack=attack_config(attack_joint=False))
    calls = faithfulness.unet_calls
    assert calls("plain PGD", plain, 60) == 0
    assert calls("far PGD, filtered", plain, 60) == 5
    assert calls("plain PGD, refined", plain, 60) == 3
    assert calls("ACE, pre-explanation", batch, 60) == 300
    assert calls("ACE, counterfactual", batch, 60) == calls("DiME's shortcut, refined", batch, 60) == 303
    assert calls("ACE, counterfactual", one_step, 60) == 63


def row(method: str, iterations: int, seed: int = 4, **changes) -> dict:
    shares = ("flip", "transfer a", "transfer b", "transfer c", "transfer pooled", "transfer earlier")
    values = {name + end: value for name in shares for end, value in (("", 0.5), (" low", 0.25), (" high", 0.75))}
    head = {"attack": method.partition(", ref")[0], "seed": seed, "n": 8, "method": method, "iterations": iterations}
    head |= {"U-Net calls": 7, "said earlier a": "nnnnnnnn", "said a": "yyyynnnn", "pair": "all"}
    return {**head, **values, "l1": 0.0456, "mask area": 0.3, "frechet": 12.34, **changes}


def test_the_table_has_a_row_a_method_at_its_most_iterations_of_the_first_seed(tmp_path):
    rows = [row("PGD", 5), row("PGD", 10, flip=0.9), row("ACE", 5), row("ACE", 10), row("ACE", 10, 5, l1=0.05)]
    write_rows(tmp_path / "rows.csv", rows)
    text = table(read_rows(tmp_path / "rows.csv"))
    assert "| PGD | 10 | 0.90 (0.25 to 0.75) | 0.50 (0.25 to 0.75) |" in text and text.count("\n| ACE |") == 1


def test_ways_are_compared_over_the_seeds_and_pairs_told_apart(tmp_path):
    rows = [
        row("ACE", 5),
        row("ACE", 10),
        row("ACE", 10, 5, l1=0.05),
        row("chain, refined", 9, **{"said a": "y......."}),
    ]
    write_rows(tmp_path / "rows.csv", rows)
    text = over_seeds(read_rows(tmp_path / "rows.csv"))
    assert "ACE, seeds 4, 5: flips 0.50" in text and "l1 0.046 to 0.050" in text and "earlier judges 0.50." in text
    assert "ACE less chain, transfer of flips: -0.50" in text
    assert "ACE less chain, transfer of all photographs: +0.38" in text
    rows = [row("ACE, counterfactual", 9, seed, attack="ACE", pair="boot-coat") for seed in (4, 5)]
    write_rows(tmp_path / "rows.csv", rows)
    assert "| pair | ACE |" in (text := by_pair(read_rows(tmp_path / "rows.csv"))) and "| 0.50 of 16 |" in text


def test_transfer_of_no_flips_is_not_a_number_but_said(tmp_path):
    none = dict.fromkeys(("transfer a", "transfer a low", "transfer a high"))
    write_rows(tmp_path / "rows.csv", [row("PGD", 5, **none)])
    assert "| n/a (0 images) |" in table(read_rows(tmp_path / "rows.csv"))


def test_the_figure_is_drawn_also_where_a_method_flips_nothing(tmp_path):
    none = dict.fromkeys(("transfer pooled", "transfer pooled low", "transfer pooled high"))
    write_rows(tmp_path / "rows.csv", [row("PGD", 5, **none), row("ACE", 5), row("ACE", 10)])
    draw(read_rows(tmp_path / "rows.csv"), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.size[0] > 800


@pytest.mark.slow
def test_faithfulness_runs_and_does_not_compute_again_what_is_there(tmp_path, capsys):
    arguments = ["--output", str(tmp_path), "--photographs", "1", "--iterations", "2", "--seeds", "4"]
    faithfulness.main(arguments)
    assert "ACE, seed 4" in capsys.readouterr().out
    before = (tmp_path / "faithfulness.csv").read_bytes()
    faithfulness.main(arguments)
    assert "s\n" not in capsys.readouterr().out.split("|")[0]
    assert (tmp_path / "faithfulness.csv").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {f"faithfulness.{kind}" for kind in ("csv", "md", "png")}
