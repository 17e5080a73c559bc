"""training.html: what it tells of a training by the files of its folder, whatever of them there is."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.cli import train_classifier, train_diffusion
from ace_counterfactuals.core.report.training import POINTS, chart, read_csv, thinned, write_training_page
from ace_counterfactuals.core.training import diffusion
from tests.support.toys import exit_code, write_pictures

BINS = [{"answers": n, "confidence": 0.5 * n, "accuracy": 0.25 * n} for n in (0, 1, 2)]
MEASURED = {"names": ["boot", "coat"], "attributes": False, "pictures": 4, "accuracy": 0.75, "ece": 0.125, "bins": BINS}
MEASURED |= {"counts": [[2, 0], [1, 1]]}


def page(folder, **files):
    """The page of a folder with these files, whose names have a dot for the two underscores."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return write_training_page(folder).read_text()


def plain(html):
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", html, flags=re.S).split())


def test_an_empty_folder_has_a_page(tmp_path):
    assert "No step was recorded." in plain(page(tmp_path))


def test_a_log_without_names_is_of_loss_and_its_parts(tmp_path):
    html = page(tmp_path, log__csv="10,0.5,0.4,0.1\n20,0.3,0.25,0.05\n", config__yaml="lr_anneal_steps: 20\n")
    assert "Step 20 of 20; finished." in plain(html)
    assert "Parts of the loss" in html and "Loss by part of the chain" not in html
    assert len(re.findall("<polyline", html)) == 3


def test_further_columns_are_told_by_name(tmp_path):
    names = "step,loss,loss_q0,loss_q1,loss_q2,loss_q3,grad_norm,lr"
    html = page(tmp_path, log__csv=f"{names}\n1,1,4,3,2,1,9,0.1\n2,1,4,,2,1,8,0.1\n3,1,4,3,2,1,7,0.1\n")
    for title in ("Loss by part of the chain", "cleanest quarter", "noisiest quarter", "Gradient", "Learning rate"):
        assert title in html
    assert len(re.findall("<polyline", html)) == 7


def test_the_frechet_distance_is_drawn_where_it_is_known(tmp_path):
    html = page(tmp_path, log__csv="1,1\n2,1\n", fid__csv="step,fid\n1,90.5\n2,40.25\n")
    assert "Fréchet distance" in html and "between 40.2 and 90.5" in html


def test_time_left_goes_by_when_samples_were_written(tmp_path):
    (tmp_path / "config.yaml").write_text("lr_anneal_steps: 40\n")
    for step, when in ((10, 1000), (20, 1600), (30, 9000)):  # stopped once, between the last two
        path = tmp_path / f"samples{step:06d}.png"
        Image.new("RGB", (8, 8)).save(path)
        os.utime(path, (when, when))
    (tmp_path / "samples000040.png").write_bytes(b"torn")
    os.utime(tmp_path / "samples000040.png", (9600, 9600))
    html = page(tmp_path, log__csv="30,1\n35,1\n")
    assert "Step 35 of 40; about 5 min left." in plain(html)
    assert re.findall(r'alt="Samples at step (\d+)"', html) == ["30", "20", "10"]


def test_a_classifiers_page_has_its_counts_and_time_left(tmp_path):
    log = "epoch,step,loss,accuracy,lr,seconds\n1,10,2.0,0.5,0.1,60\n2,20,1.0,0.75,0.1,80\n"
    html = page(tmp_path, log__csv=log, config__yaml="epochs: 4\n", measured__json=json.dumps(MEASURED))
    text = plain(html)
    assert "Epoch 2 of 4; about 2 min left. Accuracy 0.7500 on 4 pictures" in text
    assert "coat 0.5000 boot 1.0000" in text and "on average, is 0.1250" in text
    assert html.count('<rect class="after"') == 2, "bars of the parts that have answers"


def test_names_are_text(tmp_path):
    name = "<script>alert(1)</script>\"'"
    found = json.dumps(MEASURED | {"names": [name, "coat"]})
    html = page(tmp_path, measured__json=found, config__yaml=json.dumps({"data_dir": name}), log__csv="1,1\n2,1\n")
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html


DAMAGED = ["", "[[1]]", '{"names": 3}', "step\nx\n", "step,fid\n1\n", "1,2,3,4,5,6\n"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_such_file_is_left_out(tmp_path, damage):
    for name in ("config.yaml", "log.csv", "measured.json", "fid.csv"):
        (tmp_path / name).write_text(damage)
    assert "Settings" in page(tmp_path)


def test_the_page_loads_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "samples000010.png")
    html = page(tmp_path, log__csv="1,1\n2,1\n", measured__json=json.dumps(MEASURED))
    assert set(re.findall(r'(?:src|href)="([^"#][^",]{0,4})', html)) == {"data:"}
    assert "url(" not in html and "@import" not in html and "http" not in html.partition("</style>")[2]


def test_many_lines_become_as_many_points_as_can_be_seen():
    x, y = thinned(np.arange(10.0**4), np.arange(10.0**4))
    assert len(x) == POINTS and x == y and x[0] == 12


def test_a_curve_without_two_numbers_is_none(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,nan\n2,inf\n3,0.5\n")
    found = read_csv(tmp_path / "log.csv")
    assert chart("Loss", "", {"loss": (found["step"], found["loss"])}) is None


def test_both_programs_leave_their_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diffusion, "SAMPLES", 2)
    pictures = write_pictures(tmp_path / "pictures")
    common = ["--dataset", "Folder", "--data_dir", str(pictures), "--image_size", "8", "--device", "cpu"]
    words = [*common, "--arch", "small-4", "--epochs", "1", "--output_path", str(tmp_path / "c.pt")]
    assert exit_code(lambda: train_classifier.main([*words, "--val_dir", str(pictures)])) == 0
    assert "look at" in capsys.readouterr().out
    assert "Epoch 1 of 1; finished." in plain((tmp_path / "c.pt.training/training.html").read_text())
    flags = "--num_channels 32 --channel_mult 1 --num_res_blocks 1 --attention_resolutions= --diffusion_steps 21 "
    words = [*common, *f"{flags} --lr_anneal_steps 2 --log_interval 1 --output_path {tmp_path}/ddpm".split()]
    assert exit_code(lambda: train_diffusion.main(words)) == 0
    assert "Step 2 of 2; finished." in plain((tmp_path / "ddpm/training.html").read_text())
