"""One shell script a data set: what it would run is printed, and what it prints runs."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.cli import explain
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.paths import ROOT

DATA = ROOT / "tests/golden/data"
PUBLISHED = {
    "celeba": ("celeba-diffusion.pt", "celeba-classifier.pth"),
    "celebahq": ("celebahq-diffusion.pt", "celebahq-classifier.tar"),
    "bdd100k": ("bdd-diffusion.pt", "bdd-classifier.tar"),
    "bddoia": ("bdd-diffusion.pt", "bdd-classifier.tar"),
    "imagenet": ("256x256_diffusion_uncond.pt", "resnet50-0676ba61.pth"),
}
RECORDED = {
    "celeba": ("unet_celeba.pt", "dive.pth"),
    "celebahq": ("unet_celebahq.pt", "steex_hq.tar"),
    "bdd100k": ("unet_bdd.pt", "steex_bdd.tar"),
    "bddoia": ("unet_bdd.pt", "steex_bdd.tar"),
    "imagenet": ("unet_imagenet.pt", "resnet50.pth"),
}
TOY = "--num_channels 32 --num_res_blocks 1 --use_fp16 False --attack_iterations 1 --num_samples 1"
TOY_OF = {
    "celeba": "--image_size 32 --attention_resolutions 16,8,4 --channel_mult 1,2,3,4",
    "celebahq": "--image_size 32 --attention_resolutions 16,8,4 --channel_mult 1,2,3,4 --num_head_channels 32",
    "bdd100k": "--image_size 32 --attention_resolutions 2,1 --num_head_channels 32",
    "bddoia": "--image_size 32 --attention_resolutions 2,1 --num_head_channels 32",
    "imagenet": "--image_size 32 --num_head_channels 32 --channel_mult 1,1,2,2,4,4 --attention_resolutions 4,2,1",
}
scripts = pytest.mark.parametrize("script", PUBLISHED)


def run(script, *argv, **environment):
    """The finished process; whatever is set for these scripts outside is not."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACE_")}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / f"{script}.sh"), *map(str, argv)],
        env=clean | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
    )


def commands(process) -> list[list[str]]:
    """Arguments of main.py in each printed command."""
    assert process.returncode == 0, process.stderr
    lines = [shlex.split(line) for line in process.stdout.splitlines()]
    return [line[2:] for line in lines if line[1] == str(ROOT / "main.py")]


@pytest.fixture
def folders(tmp_path):
    """Function: script -> arguments with empty files for weights."""

    def arguments(script, names=PUBLISHED):
        models = tmp_path / "models of others"
        models.mkdir(exist_ok=True)
        for name in names[script]:
            (models / name).touch()
        return ["--data", tmp_path / "data", "--models", models, "--output", tmp_path / "out"]

    return arguments


def printed(script, folders, *argv):
    return commands(run(script, *folders(script), "--dry-run", *argv))


@pytest.mark.parametrize(
    ("script", "queries"),
    [
        ("celeba", {"smile": (31, -1), "age": (39, -1)}),
        ("celebahq", {"smile": (31, -1), "age": (39, -1)}),
        ("bdd100k", {"forward": (0, -1), "slow-down": (1, -1)}),
        ("bddoia", {"forward": (0, -1), "slow-down": (1, -1)}),
        (
            "imagenet",
            {
                "zebra-sorrel": ("zebra", "sorrel"), "sorrel-zebra": ("sorrel", "zebra"),
                "cheetah-cougar": ("cheetah", "cougar"), "cougar-cheetah": ("cougar", "cheetah"),
                "egyptian-persian": ("Egyptian cat", "Persian cat"),
                "persian-egyptian": ("Persian cat", "Egyptian cat"),
            },
        ),
    ],
)  # fmt: skip
def test_a_script_asks_the_questions_of_the_paper_with_both_distances(script, queries, folders, tmp_path):
    configs = [parse(MainConfig, "", argv) for argv in printed(script, folders)]
    assert len(configs) == 2 * len(queries)
    runs = {(Path(c.output.output_path).relative_to(tmp_path / "out").name, c.output.exp_name): c for c in configs}
    for name, (query, target) in queries.items():
        for distance in ("l1", "l2"):
            config = runs[name, distance]
            labels = (config.data.label_query, config.data.label_target)
            assert labels == tuple(map(label_of, (query, target)))
            assert (config.attack.dist_l1 > 0, config.attack.dist_l2 > 0) == (distance == "l1", distance == "l2")


def label_of(name) -> int:
    from ace_counterfactuals.core.data.datasets import imagenet_classes

    return imagenet_classes()[1].index(name) if isinstance(name, str) else name


@scripts
def test_a_script_takes_the_data_set_that_it_is_named_for(script, folders):
    wanted = {
        "celeba": "CelebA",
        "celebahq": "CelebAHQ",
        "bdd100k": "BDD100k",
        "bddoia": "BDDOIA",
        "imagenet": "ImageNet",
    }
    assert {parse(MainConfig, "", argv).data.dataset for argv in printed(script, folders)} == {wanted[script]}


@scripts
@pytest.mark.parametrize("names", [PUBLISHED, RECORDED], ids=["published", "recorded"])
def test_weights_are_found_by_their_names(script, names, folders):
    for argv in commands(
        run(script, *folders(script, names), "--dry-run", "--only", "nothing smile forward zebra-sorrel")
    ):
        config = parse(MainConfig, "", argv)
        found = (Path(config.weights.model_path).name, Path(config.weights.classifier_path).name)
        assert found == names[script]


def test_a_published_name_goes_before_another(folders):
    folders("celeba", RECORDED)
    assert "celeba-diffusion.pt" in printed("celeba", folders)[0][5]


def test_weights_that_are_not_there_are_named(folders, tmp_path):
    arguments = folders("celebahq")
    (tmp_path / "models of others/celebahq-classifier.tar").unlink()
    process = run("celebahq", *arguments)
    assert process.returncode == 2 and process.stdout == ""
    assert "wanted celebahq-classifier.tar or celebamaskhq/checkpoint.tar or steex_hq.tar there" in process.stderr


def test_weights_that_are_typed_are_not_searched_for(folders, tmp_path):
    process = run(
        "celeba", "--data", "d", "--output", "o", "--model_path", "a b.pt", "--classifier_path=c.pth", "--dry-run"
    )
    config = parse(MainConfig, "", commands(process)[0])
    assert (config.weights.model_path, config.weights.classifier_path) == ("a b.pt", "c.pth")


def test_imagenet_needs_no_classifier_since_torchvision_has_it(folders, tmp_path):
    arguments = folders("imagenet")
    (tmp_path / "models of others/resnet50-0676ba61.pth").unlink()
    assert "--classifier_path" not in commands(run("imagenet", *arguments, "--dry-run"))[0]


def test_what_is_typed_wins_over_preset_and_query(folders):
    for argv in printed("celeba", folders, "--image_size", "64", "--dist_l1", "0.5", "--channel_mult", ""):
        config = parse(MainConfig, "", argv)
        assert (config.data.image_size, config.attack.dist_l1, config.model.channel_mult) == (64, 0.5, "")


@pytest.mark.parametrize(
    ("words", "evaluated"),
    [("", True), ("--chunk auto", False), ("--chunks 3 --chunk=0", False), ("--chunks 3 --merge_chunks True", True)],
)
def test_one_of_several_chunks_is_passed_on_and_not_evaluated(words, evaluated, folders):
    process = run("celeba", *folders("celeba"), "--only", "age-l1", "--dry-run", *words.split())
    (argv,) = commands(process)
    assert argv[len(argv) - len(words.split()) :] == words.split()
    assert ("evaluate.py" in process.stdout) == evaluated


def test_networks_of_the_metrics_are_found_by_their_names_and_handed_to_evaluate(folders, tmp_path):
    arguments, models = folders("celebahq"), tmp_path / "models of others"
    names = {
        "inception_weights": "pt_inception-2015-12-05-6726825d.pth",
        "simsiam_weights": "simsiam.pth.tar",
        "vggface2_weights": "resnet50_ft_weight.pkl",
        "oracle_path": "celebahq-oracle.tar",
    }
    for name in names.values():
        (models / name).touch()
    process = run("celebahq", *arguments, "--only", "age-l1", "--dry-run", "--device", "cpu")
    words = shlex.split(process.stdout.splitlines()[-1])
    assert words[1].endswith("evaluate.py")
    found = to_dict(parse(EvaluateConfig, "", words[2:], hyphens=True))
    assert {flag: found[flag] for flag in names} == {flag: str(models / name) for flag, name in names.items()}
    assert (found["celeba_path"], found["device"]) == (str(tmp_path / "data"), "cpu")


def test_pictures_other_than_faces_are_not_judged_as_faces(folders, tmp_path):
    arguments = folders("bdd100k")
    (tmp_path / "models of others/resnet50_ft_weight.pkl").touch()
    assert "vggface2" not in run("bdd100k", *arguments, "--dry-run").stdout


def test_folders_can_come_from_the_environment(folders):
    arguments = folders("celeba")
    environment = dict(zip(("ACE_DATA", "ACE_MODELS", "ACE_OUTPUT"), map(str, arguments[1::2]), strict=True))
    by_environment = run("celeba", "--dry-run", **environment)
    assert commands(by_environment) == commands(run("celeba", *arguments, "--dry-run"))


@pytest.mark.parametrize(
    ("argv", "runs"),
    [
        (["--only", "age"], ["age/l1", "age/l2"]),
        (["--only", "age-l2"], ["age/l2"]),
        (["--only", "smile-l1 age-l2"], ["smile/l1", "age/l2"]),
        (["--distances", "l1"], ["smile/l1", "age/l1"]),
    ],
)
def test_some_runs_can_be_chosen(argv, runs, folders):
    configs = [parse(MainConfig, "", line) for line in printed("celeba", folders, *argv)]
    assert [f"{Path(c.output.output_path).name}/{c.output.exp_name}" for c in configs] == runs


def test_the_weight_of_l2_can_be_chosen(folders):
    (argv,) = printed("celeba", folders, "--only", "age-l2", "--l2", "0.7")
    assert parse(MainConfig, "", argv).attack.dist_l2 == 0.7


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--data is not given"),
        (["--data", "d"], "--output is not given"),
        (["--data", "d", "--output", "o"], "--models is not given"),
        (["--data"], "--data: wanted a value"),
        (["--data", "d", "--output", "o", "--distances", "l3"], "--distances 'l3'"),
    ],
)
def test_a_command_that_is_not_complete_is_refused_in_one_line(argv, said):
    process = run("celeba", *argv)
    assert process.returncode == 2 and process.stderr.count("\n") == 1 and said in process.stderr


def test_an_unknown_query_is_refused(folders):
    process = run("celeba", *folders("celeba"), "--only", "smle")
    assert process.returncode == 2 and "--only 'smle': no such query" in process.stderr


def test_an_interpreter_without_the_packages_is_refused(folders, tmp_path):
    process = run("celeba", *folders("celeba"), PYTHON=str(tmp_path / "python"))
    assert process.returncode == 2 and "PYTHON=" in process.stderr


@scripts
def test_help_is_printed(script):
    process = run(script, "--help")
    assert process.returncode == 0 and f"usage: bash scripts/{script}.sh" in process.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    names = [*PUBLISHED, "common", "download-weights"]
    process = subprocess.run(
        ["shellcheck", "-x", *(str(ROOT / "scripts" / f"{name}.sh") for name in names)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout


@pytest.fixture
def recorded(golden_weights, tmp_path):
    """Function: script -> its arguments for the recorded weights and the tiny data set, at toy size."""

    def arguments(script):
        models = {golden_weights(name).parent for name in RECORDED[script]}
        data = DATA / script
        if script == "imagenet":  # its folders have made-up names
            data = tmp_path / "imagenet"
            shutil.copytree(DATA / script / "n00000000", data / "n02391049")
        return [
            "--data",
            data,
            "--models",
            models.pop(),
            "--output",
            tmp_path / "out",
            *shlex.split(f"{TOY} {TOY_OF[script]}"),
        ]

    return arguments


@pytest.mark.slow
@scripts
def test_what_a_script_prints_runs_at_toy_size(script, recorded, tmp_path):
    only = {"celeba": "smile-l1", "celebahq": "age-l2", "imagenet": "zebra-sorrel-l1"}.get(script, "slow-down-l1")
    (argv,) = commands(run(script, *recorded(script), "--only", only, "--dry-run"))
    assert explain.main(argv) == 0
    query, distance = only.rsplit("-", 1)
    assert (tmp_path / "out" / query / "Results" / distance / "summary.yaml").exists()


@pytest.mark.slow
def test_a_script_runs_all_of_its_queries_and_continues(recorded, tmp_path):
    first = run("celebahq", *recorded("celebahq"), "--distances", "l1")
    assert first.returncode == 0, first.stderr
    summaries = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").glob("*/Results/*/summary.yaml")
    )
    assert summaries == [f"{query}/Results/l1/summary.yaml" for query in ("age", "smile")]
    again = run("celebahq", *recorded("celebahq"), "--only", "smile-l1")
    assert again.returncode == 0 and "1 of 1 pictures are finished already" in again.stderr
