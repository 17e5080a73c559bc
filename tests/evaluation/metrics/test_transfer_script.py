"""compute_transfer.py, from flags to the printed lines, and what it refuses."""

import json
import shutil

import pytest
import torch

from ace_counterfactuals.core.cli import compute
from ace_counterfactuals.core.evaluation.judges import aligned
from ace_counterfactuals.core.runs.layout import FOLDERS
from ace_counterfactuals.models.classifiers import Classifier, open_ours, save_classifier
from ace_counterfactuals.models.loading import load_weights
from tests.support.toys import CLASSES, SIDE, Workshop, exit_code, pictures


def main(words) -> int:
    return compute.run("transfer", words)


def save(path, network, names):
    save_classifier(path, network, arch="small-4", class_names=names, mean=[0.5] * 3, std=[0.2] * 3, image_size=SIDE)
    return path


@torch.no_grad()
def undecided(file):
    """The toy classifier with a head that sees different classes in the toy pictures."""
    network = open_ours(load_weights(file), "")[0].eval()
    network.head.weight.normal_(std=100)
    network.head.bias.zero_().sub_(network((pictures(6) - 0.5) / 0.2).mean(0))
    return network


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Six pictures, sent to another class by an attack on the classifier alone.

    near.pt is the attacked network with its classes in another order; far.pt sees a boot everywhere.
    """
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    torch.manual_seed(0)
    network = undecided(workshop.classifier)
    save(workshop.classifier, network, CLASSES)
    workshop.run(attack_joint=False, sampling_time_fraction=0, attack_iterations=20)
    names = [*CLASSES[::-1], "unknown to the experiment"]
    for parameter in (network.head.weight, network.head.bias):
        parameter.data = torch.cat([parameter.data.flip(0), torch.full_like(parameter.data[:1], -9)])
    save(workshop.folder / "near.pt", network, names)
    network.head.weight.data.zero_()
    network.head.bias.data = torch.tensor([0.0, 0, 9, 0])
    save(workshop.folder / "far.pt", network, names)
    return workshop


def words(workshop, *files, output=None) -> list[str]:
    names = [str(workshop.folder / file) for file in files]
    where = ["--output-path", str(output or workshop.output), "--exp-name", "exp", "--device", "cpu"]
    return [*where, "--classifier", *names]


def failure(capsys, arguments) -> str:
    assert exit_code(lambda: main(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    return lines[0]


def test_transfer_is_printed_for_each_unseen_classifier_and_pooled_and_classes_go_by_name(workshop, tmp_path, capsys):
    """near.pt follows every flip that 8-bit storage left; far.pt follows none."""
    main([*words(workshop, "near.pt", "far.pt"), "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    near, far = written["classifiers"].values()
    assert near["n"] == near["pictures"] > 0 and near["share"] == 1.0 and near["movement"] > 0.1
    assert far["share"] in (0.0, None) and far["n"] < near["n"]
    assert written["pooled"]["n"] == near["n"] + far["n"] == written["n"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].rsplit("/", 1)[-1] for line in printed] == ["near.pt", "far.pt", "pooled"]
    assert f"transfer 1.000 (95 %: {near['low']:.3f} to 1.000)" in printed[0]


@pytest.mark.parametrize("size", [1, 4])
def test_transfer_does_not_depend_on_the_batch(workshop, tmp_path, size):
    """A logit is a sum of terms of up to 300 together, which float32 rounds to 300 * 2^-23 = 4e-5 a term."""
    found = []
    for batch in (size, 15):
        main([*words(workshop, "near.pt"), "--json", str(tmp_path / "out.json"), "--batch-size", str(batch)])
        found.append(json.loads((tmp_path / "out.json").read_text())["pooled"])
    assert found[0] == pytest.approx(found[1], abs=2e-4)


def test_transfer_of_an_experiment_without_flips_is_not_available(workshop, tmp_path, capsys):
    shutil.copytree(workshop.output, tmp_path / "out")
    for flipped in tmp_path.glob("out/Results/exp/*/*/CCF/CF/*.png"):
        flipped.rename(flipped.parents[2] / "ICF/CF" / flipped.name)
    assert main(words(workshop, "near.pt", output=tmp_path / "out")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "pooled: transfer n/a (0 images)"


@pytest.mark.parametrize(("names", "answer"), [(("no", "yes"), 1), (("yes", "no"), 0), (None, 1)])
def test_transfer_asks_a_binary_classifier_by_the_names_of_its_answers(names, answer):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    torch.nn.init.constant_(network[1].weight, 0.1)
    classifier = Classifier(network, ([0.0] * 3, [1.0] * 3), num_outputs=1, view=0, class_names=names)
    logits = aligned(classifier, ("no", "yes"), "--classifier a.pt")(torch.ones(1, 3, 2, 2))
    assert logits.shape == (1, 2) and logits.argmax(1).item() == answer


def test_transfer_names_the_classifier_that_cannot_take_the_pictures(workshop, capsys, monkeypatch):
    network, _ = open_ours(load_weights(workshop.classifier), "")
    network.stem[0] = torch.nn.Conv2d(3, 4, 16)
    classifier = Classifier(network, ([0.0] * 3, [1.0] * 3), num_outputs=3, class_names=CLASSES)
    monkeypatch.setattr("ace_counterfactuals.models.classifiers.load_classifier", lambda *_, **__: classifier)
    message = failure(capsys, words(workshop, "near.pt"))
    assert message.startswith("error: --classifier ") and "near.pt: cannot take pictures of 8 x 8: " in message


@pytest.mark.parametrize("given", [(), ("--dataset", "Folder")])
def test_transfer_of_no_picture_needs_no_classifier(given, tmp_path, capsys):
    for folder in FOLDERS:
        (tmp_path / f"Results/exp/{folder}/CF").mkdir(parents=True)
    assert main(["--output-path", str(tmp_path), "--exp-name", "exp", "--device", "cpu", *given]) == 0
    assert capsys.readouterr().out == "pooled: transfer n/a (0 images)\n"


def test_transfer_refuses_the_attacked_classifier_by_its_content(workshop, capsys):
    shutil.copy(workshop.classifier, workshop.folder / "renamed.pt")
    message = failure(capsys, words(workshop, "near.pt", "renamed.pt"))
    assert "renamed.pt: is the classifier that was attacked" in message


def test_transfer_refuses_a_classifier_given_twice(workshop, capsys):
    assert "is the same classifier as" in failure(capsys, words(workshop, "near.pt", "near.pt"))


def test_transfer_refuses_a_classifier_that_does_not_know_the_classes(workshop, capsys):
    network, _ = open_ours(load_weights(workshop.classifier), "")
    save(workshop.folder / "other.pt", network, ["boot", "coat", "hat"])
    message = failure(capsys, words(workshop, "other.pt"))
    assert message.endswith("other.pt: does not know shirt of the experiment's classes; it knows boot, coat, hat")


def test_transfer_names_its_flag_for_what_is_no_classifier(workshop, capsys):
    assert "--classifier " in failure(capsys, words(workshop, "absent.pt"))
    assert "--classifier" in failure(capsys, words(workshop)[:-1])
    (workshop.folder / "text.pt").write_text("no weights")
    assert "--classifier " in failure(capsys, words(workshop, "text.pt"))


def test_transfer_of_a_folder_of_the_original_program_asks_for_the_data_set(workshop, tmp_path, capsys):
    shutil.copytree(workshop.output, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/Results/exp/records")
    (tmp_path / "out/Results/exp/config.yaml").unlink()
    arguments = words(workshop, "near.pt", output=tmp_path / "out")
    assert failure(capsys, arguments).startswith("error: --dataset ")
    assert main([*arguments, "--dataset", "Folder"]) == 0
    assert "transfer" in capsys.readouterr().out


def test_transfer_names_an_info_file_that_is_cut_off(workshop, tmp_path, capsys):
    shutil.copytree(workshop.output, tmp_path / "out")
    info = next(tmp_path.glob("out/Results/exp/explanation/*/CCF/Info/*.txt"))
    info.write_text(info.read_text()[:20])
    assert f"{info}: wanted a line 'name: number'" in failure(
        capsys, words(workshop, "near.pt", output=tmp_path / "out")
    )
