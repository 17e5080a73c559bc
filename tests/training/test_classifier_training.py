"""train_classifier.py: what it can be trained to tell, what it sees, what it keeps, and how well it does."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.cli import compute, train_classifier
from ace_counterfactuals.core.training import classifier, feeding, record
from ace_counterfactuals.core.training.classifier import balance
from ace_counterfactuals.core.training.feeding import augmentation
from ace_counterfactuals.core.training.judged import BINS, judged
from ace_counterfactuals.core.training.record import History
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.judges import load_oracle
from ace_counterfactuals.models.loading import load_weights
from tests.support.paths import GOLDEN
from tests.support.toys import exit_code, write_pictures

FACES = GOLDEN / "data/celeba"


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("classes"), count=12)


def trained(data, file, **changes):
    flags = {"dataset": "Folder", "data_dir": data, "image_size": 8, "device": "cpu", "arch": "small-4", "epochs": 2}
    flags |= {"batch_size": 5, "output_path": file, **changes}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return exit_code(lambda: train_classifier.main(words))


def weights(file):
    return load_weights(file)["state_dict"]


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_all_attributes_at_once_are_an_oracle_for_mnac_and_a_classifier_for_main(tmp_path, capsys):
    file = tmp_path / "oracle.pt"
    assert trained(FACES, file, dataset="CelebA", epochs=1, batch_size=100) == 0
    names = (FACES / "list_attr_celeba.csv").read_text().splitlines()[0].split(",")[1:]
    oracle, images = load_oracle(file, of="CelebA"), torch.rand(2, 3, 8, 8)
    assert list(oracle.class_names) == names and oracle(images).shape == (2, 40)
    answer = load_classifier(file, binary=True, query=31)
    assert answer.class_names == ("not Smiling", "Smiling")
    torch.testing.assert_close(answer(images).sigmoid(), oracle(images)[:, 31])
    words = [
        "--output-path",
        GOLDEN / "eval/celeba",
        "--exp-name",
        "exp/swap",
        "--device",
        "cpu",
        "--oracle-path",
        file,
    ]
    assert compute.run("MNAC", [str(word) for word in words]) == 0
    assert "MNAC" in capsys.readouterr().out


def test_one_attribute_is_one_logit(tmp_path):
    file = tmp_path / "smile.pt"
    assert trained(FACES, file, dataset="CelebA", label_query="Smiling", val_dir=FACES, batch_size=100, epochs=1) == 0
    answer = load_classifier(file, binary=True, query=31)
    assert answer(torch.rand(2, 3, 8, 8)).shape == (2,) and answer.class_names == ("not Smiling", "Smiling")
    found = json.loads((tmp_path / "smile.pt.training/measured.json").read_text())
    labels = [line.split(",")[32] for line in (FACES / "list_attr_celeba.csv").read_text().splitlines()[201:213]]
    assert found["pictures"] == 12, "the partition that is explained"
    assert sum(found["counts"][0][:2]) == labels.count("1")


def test_attributes_of_a_table_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["file,bright,red"]
    for i in range(24):
        bright, red = i % 2, i // 2 % 2
        levels = np.full((8, 8, 3), 60 + 120 * bright) + rng.integers(0, 20, (8, 8, 3))
        levels[..., 0] += 40 * red
        Image.fromarray(levels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{bright},{red}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    flags = {"dataset": "CSV", "csv_label": "bright,red", "epochs": 40, "batch_size": 24, "lr": 0.02}
    assert trained(tmp_path, tmp_path / "c.pt", val_dir=tmp_path, keep="best", **flags) == 0
    found = json.loads((tmp_path / "c.pt.training/measured.json").read_text())
    assert found["accuracy"] > 0.9 and found["names"] == ["bright", "red"]


def test_dives_densenet_is_written_as_main_reads_it_without_further_flags(tmp_path):
    data, file = shutil.copytree(GOLDEN / "data/celebahq", tmp_path / "data"), tmp_path / "dive.pt"
    partitions = data / "list_eval_partition.csv"
    partitions.write_text(partitions.read_text().replace(",2", ",0"))
    flags = {"dataset": "CelebAHQ", "arch": "dive", "image_size": 32, "epochs": 1, "batch_size": 2}
    assert trained(data, file, **flags) == 0
    assert load_weights(file).keys() == {"feat_extract", "classifier"}
    answer = load_classifier(file, binary=True, query=39, heads={20: 0, 31: 1, 39: 2})
    assert answer(torch.rand(2, 3, 32, 32)).isfinite().all()


def test_pictures_that_memory_does_not_hold_give_the_same_weights(classes, tmp_path, monkeypatch, capfd):
    assert trained(classes, tmp_path / "held.pt") == 0
    monkeypatch.setattr(feeding, "HELD", 0)
    assert trained(classes, tmp_path / "decoded.pt", val_dir=classes) == 0
    assert "they are decoded anew for each batch" in capfd.readouterr().err
    assert same(weights(tmp_path / "held.pt"), weights(tmp_path / "decoded.pt"))


@pytest.mark.parametrize("held", [0, 0.5])
def test_a_picture_that_cannot_be_read_is_told_and_left_out(classes, tmp_path, monkeypatch, capfd, held):
    data = shutil.copytree(classes, tmp_path / "data")
    (data / "boot/003.png").write_bytes(b"torn")
    monkeypatch.setattr(feeding, "HELD", held)
    assert trained(data, tmp_path / "c.pt", epochs=1) == 0
    assert "left out: " in capfd.readouterr().err


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["crop", "colour", "rand"])
def test_an_augmentation_is_drawn_by_the_step_alone(name, channels):
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, channels, 12, 24), np.uint8))
    change, before = augmentation(name, 12, 24), torch.get_rng_state()
    once, again, other = (change(pictures, 4, step) for step in (7, 7, 8))
    assert once.shape == pictures.shape and once.dtype == torch.uint8
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once, pictures)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("changes", [{"augment": "crop"}, {"schedule": "cosine"}, {"class_weights": True}])
def test_every_option_changes_the_weights(tmp_path, classes, changes):
    data = shutil.copytree(classes, tmp_path / "data")
    (data / "boot/000.png").unlink()
    for file, options in (("plain.pt", {}), ("changed.pt", changes)):
        assert trained(data, tmp_path / file, epochs=1, **options) == 0
    assert not same(weights(tmp_path / "plain.pt"), weights(tmp_path / "changed.pt"))


def test_half_precision_changes_the_weights_which_stay_in_single_precision(classes, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "half_precision", lambda *_, **__: torch.bfloat16)
    for use in (False, True):
        assert trained(classes, tmp_path / f"{use}.pt", use_fp16=use, epochs=1) == 0
    half = weights(tmp_path / "True.pt")
    assert not same(half, weights(tmp_path / "False.pt"))
    assert {value.dtype for value in half.values()} <= {torch.float32, torch.int64}


def test_weights_of_classes_make_each_count_the_same():
    weight, labels = balance(torch.tensor([0, 0, 0, 2])), torch.tensor([0, 0, 0, 2])
    assert weight[labels].sum() == 4 and weight[0] * 3 == weight[2] and weight[1] == 1
    assert balance(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])).tolist() == [2, 1]


def test_confusion_and_calibration_of_classes_are_counted():
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]))
    found = judged(logits, torch.tensor([0, 1, 1, 1]), ("a", "b"))
    assert found.counts == [[1, 0], [2, 1]] and found.accuracy == 0.5
    assert [row["accuracy"] for row in found.rows] == pytest.approx([1, 1 / 3])
    assert sum(one.answers for one in found.bins) == 4 and len(found.bins) == BINS
    assert found.ece == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.7 - 1) + 0.6) / 4)


def test_attributes_are_counted_one_by_one():
    found = judged(torch.tensor([[9.0, -9.0], [9.0, 9.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), ("a", "b"))
    assert found.counts == [[1, 0, 1, 0], [1, 0, 0, 1]] and found.accuracy == 0.75
    assert [row["accuracy"] for row in found.rows] == [0.5, 1]


def test_the_weights_of_the_best_epoch_are_kept(classes, tmp_path, monkeypatch):
    seen, real = [], classifier.measured

    def measured(network, *rest):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        found = real(network, *rest)
        vars(found)["accuracy"] = [0.2, 0.9, 0.9, 0.1, 0.0][len(seen) - 1]
        return found

    monkeypatch.setattr(classifier, "measured", measured)
    assert trained(classes, tmp_path / "c.pt", val_dir=classes, keep="best", epochs=4) == 0
    assert same(weights(tmp_path / "c.pt"), seen[1]) and not same(seen[3], seen[1])


class Killed(BaseException):
    """What nothing catches, as SIGKILL."""


@pytest.mark.parametrize("step", [1, 4])
def test_a_training_that_was_killed_goes_on_to_the_same_weights_and_record(classes, tmp_path, monkeypatch, step):
    options = {"save_seconds": 0, "val_dir": classes, "keep": "best", "augment": "crop,rand", "schedule": "cosine"}
    assert trained(classes, tmp_path / "whole.pt", **options) == 0
    real, calls = History.add, []

    def add(*values):
        calls.append(values)
        if len(calls) > step:
            raise Killed
        real(*values)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(record.History, "add", add)
        trained(classes, tmp_path / "killed.pt", **options)
    assert trained(classes, tmp_path / "killed.pt", **options) == 0
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "killed.pt"))
    logs = [(tmp_path / f"{name}.pt.training/log.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [[line.rpartition(",")[0] for line in log] for log in logs][0] == [
        line.rpartition(",")[0] for line in logs[1]
    ]


def test_the_record_is_complete(classes, tmp_path):
    assert trained(classes, tmp_path / "c.pt", val_dir=classes) == 0
    folder = tmp_path / "c.pt.training"
    names = {"config.yaml", "log.csv", "measured.json", "accuracy.csv", "confusion.png", "calibration.png"}
    assert names <= {path.name for path in folder.iterdir()}
    assert (folder / "accuracy.csv").read_text().splitlines()[1].startswith("boot,4,")


def test_a_loss_that_is_no_number_ends_it_with_the_step(classes, tmp_path, capfd):
    assert trained(classes, tmp_path / "c.pt", lr=1e30, schedule="cosine", epochs=4) == 2
    assert "error: the loss is nan at step" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "c.pt").exists()


REFUSED = [
    ({"keep": "best"}, "--keep best: goes by the accuracy on val_dir"),
    ({"augment": "crop,blur"}, "--augment crop,blur: wanted some of crop, colour, rand"),
    ({"arch": "dive"}, "--arch dive: DiVE and STEEX have no classifier of dataset Folder"),
    ({"arch": "net.py:make"}, "--arch net.py:make: wanted what can be trained"),
    ({"label_query": "boot"}, "--label_query boot: dataset Folder has classes"),
    ({"dataset": "CelebA", "data_dir": FACES, "label_query": "Smilling"}, "--label_query Smilling: no label"),
    (
        {"dataset": "CelebA", "data_dir": FACES, "arch": "dive", "label_query": 31},
        "--label_query 31: arch dive tells 40",
    ),
    ({"dataset": "BDD100k"}, "--data_dir"),
    ({"data_dir": "nowhere"}, "--data_dir nowhere: no such folder"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_be_trained_is_one_line(classes, tmp_path, capfd, changes, said):
    assert trained(classes, tmp_path / "c.pt", **changes) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {said}") and not any("Traceback" in line for line in lines)


def test_two_trainings_do_not_write_one_file(classes, tmp_path, capfd):
    with classifier.alone(tmp_path / "c.pt.training"):
        assert trained(classes, tmp_path / "c.pt") == 2
    assert "another training is at work there" in capfd.readouterr().err.splitlines()[-1]


def test_driving_scenes_whose_labels_are_all_the_same_are_refused(tmp_path, capfd):
    (tmp_path / "train").mkdir()
    for path in write_pictures(tmp_path / "made").rglob("*.png"):
        path.rename(tmp_path / "train" / path.name)
    assert trained(tmp_path, tmp_path / "c.pt", dataset="BDD100k") == 2
    assert "dataset BDD100k says the same of every picture" in capfd.readouterr().err.splitlines()[-1]
