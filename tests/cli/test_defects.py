"""Defects of the original program that a folder must not have, by their numbers in docs/original.md, section 8."""

import pytest
import yaml

from ace_counterfactuals.core.data import imageset
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import read_record
from tests.support.toys import Workshop, tree


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_defect_6_a_run_that_saves_no_pictures_does_not_crash(workshop):
    assert workshop.run(save_images=False) == 0
    assert not list(workshop.output.rglob("*.png"))
    assert len(list(workshop.output.rglob("Info/*.txt"))) == 12


def test_defect_10_merging_chunks_starts_and_ends(workshop):
    for chunk in (1, 0):
        workshop.run(chunks=2, chunk=chunk)
    assert workshop.run(chunks=2, merge_chunks=True) == 0
    assert yaml.safe_load((workshop.results() / "summary.yaml").read_text())["n"] == 6


def test_defect_13_the_summary_is_yaml_with_numbers_in_it(workshop):
    workshop.run(num_samples=1)
    summary = yaml.safe_load((workshop.results() / "summary.yaml").read_text())
    assert {type(value) for value in summary["explanation"].values()} <= {int, float}


def test_defect_14_a_picture_that_changes_folder_leaves_no_stale_files(workshop):
    """Another device decides otherwise."""
    workshop.run(batch_size=1)
    results = ResultFolder(workshop.output, "exp")
    path = results.record(2)
    record, before = read_record(path), tree(workshop.output)
    moved = record.folder("explanation").replace("ICF", "XXX").replace("CCF", "ICF").replace("XXX", "CCF")
    for content in ("CF", "Noise", "SM", "Info"):
        place = results.path("explanation", record.folder("explanation"), content, 2)
        place.rename(results.path("explanation", moved, content, 2))
    path.unlink()
    workshop.run(batch_size=1)
    assert tree(workshop.output) == before


def test_defect_15_runs_with_other_targets_share_originals_and_overwrite_none(workshop):
    classes = {"boot": "coat", "coat": "shirt", "shirt": "boot"}
    workshop.run(exp_name="whole")
    whole = tree(workshop.output / "Original")
    for query, target in classes.items():
        workshop.run(exp_name=target, label_query=query, label_target=target)
        assert tree(workshop.output / "Original") == whole
    indices = [set(ResultFolder(workshop.output, target).read()[0]) for target in classes.values()]
    assert sorted(index for part in indices for index in part) == list(range(6))


def test_defect_16_choosing_by_label_decodes_the_chosen_pictures_alone(workshop, monkeypatch):
    decode, decoded = imageset.decode, []
    monkeypatch.setattr(
        imageset, "decode", lambda path, **options: decoded.append(path.parent.name) or decode(path, **options)
    )
    workshop.run(label_query="coat", label_target="boot", image_channels=3)
    assert set(decoded) == {"coat"}
