"""tune.py: the filter alone, a search from the best setting to its neighbours, and what it leaves."""

import shlex
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import FlagError, from_dict, to_dict
from ace_counterfactuals.core.cli import tune as program
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import chain_of, judge
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import task_of
from ace_counterfactuals.core.tuning import search
from ace_counterfactuals.core.tuning.config import SearchConfig, TuneConfig
from ace_counterfactuals.core.tuning.evidence import COLUMNS, Evidence
from ace_counterfactuals.core.tuning.ground import Ground, choose_pictures, start_of
from ace_counterfactuals.core.tuning.strength import Strength, grid, largest, noise_flags, share_of, try_filters
from ace_counterfactuals.core.tuning.trials import FLAGS, attempt, choose, looks, pre_explanations, refinements
from ace_counterfactuals.models.denoisers import DiffusionModel
from tests.support.toys import ToyClassifier, ToyDenoiser, Workshop, pictures, toy_diffusion, write_classifier

SETTINGS = {
    "dataset": "Folder",
    "image_size": 8,
    "attack_iterations": 8,
    "attack_step": 8.0,
    "attack_filter": "one-step",
    "timestep_respacing": "4",
    "sampling_time_fraction": 0.5,
    "diffusion_steps": 100,
    "learn_sigma": True,
    "sampling_dilation": 3,
    "batch_size": 3,
}


def toy_ground(count: int = 4, **changes) -> Ground:
    config = from_dict(MainConfig, {**SETTINGS, **changes})
    process = toy_diffusion("", diffusion_steps=config.diffusion.diffusion_steps)
    denoiser = DiffusionModel(ToyDenoiser(), process)
    task = task_of(config, ToyClassifier(), denoiser)
    return Ground(config, denoiser, judge(pictures(count), task).aimed(), {}, None, "made with toys\n")


def strength(share: float, kept: float = 1.0) -> Strength:
    return Strength(noise_flags(share, 2, 100), share, round(share * 99), kept, torch.zeros(0), [], [])


def row(**changes) -> dict:
    usual = {"trial": 1, "timestep_respacing": "4", "sampling_time_fraction": 0.5, "attack_step": 8.0}
    usual |= {"dist_l1": 0.001, "attack_iterations": 8, "at_most": 8, "refine_timestep_respacing": "same"}
    usual |= {"refine_time_fraction": -1.0, "n": 16, "flip": 1.0, "l1": 0.05, "validity": 0.5, "transfer": None}
    return {name: (usual | {"seconds": 1.0} | changes)[name] for name in COLUMNS}


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("share", [0.04, 0.1, 1 / 3, 0.5, 1.0])
def test_tuned_noise_takes_its_steps_and_begins_where_it_is_asked(share, steps):
    ground = toy_ground(1, **noise_flags(share, steps, 1000), diffusion_steps=1000)
    assert chain_of(ground.config.sampling, ground.batch.task.diffusion)[1] == steps
    assert share_of(ground.config, ground)[0] == pytest.approx(share, rel=0.25)


def test_tune_takes_the_most_noise_that_predictions_survive_and_else_the_least():
    several = [strength(0.05), strength(0.1, 0.9), strength(0.2, 0.96), strength(0.5, 0.4)]
    assert largest(several).share == 0.2
    assert largest([strength(0.05, 0.2), strength(0.5, 0.1)]).share == 0.05


def test_tune_tries_the_filter_alone_from_little_noise_to_much_and_alike_in_any_batch():
    found, again = (try_filters(toy_ground(batch_size=size)) for size in (1, 4))
    assert [one.step for one in found] == sorted({one.step for one in found})
    for one, other in zip(found, again, strict=True):
        assert one.kept == other.kept and 0 <= one.kept <= 1
        torch.testing.assert_close(one.filtered, other.filtered)


@pytest.mark.parametrize("changes", [{}, {"attack_stop_confidence": 0.5}])
def test_a_trial_of_tune_is_seen_as_shorter_attacks_would_end(changes):
    ground = toy_ground(3, **changes)
    (part,) = ground.parts({})
    for look, found in pre_explanations(part, looks(ground, 8)).items():
        (alone,) = ground.parts({"attack_iterations": look})
        torch.testing.assert_close(found, attack(alone)[0], rtol=0, atol=0)


def test_tune_looks_at_the_end_alone_where_the_distance_has_a_schedule():
    assert looks(toy_ground(1), 8) == [2, 4, 8] and looks(toy_ground(1, dist_schedule="linear"), 8) == [8]


def test_a_trial_of_tune_does_not_depend_on_the_batch():
    ground = toy_ground(4)
    setting = search.setting_of(ground.config)
    rows = [attempt(toy_ground(4, batch_size=size), 1, setting, grid(ground)[0]) for size in (1, 4)]
    for one, other in zip(*rows, strict=True):
        assert one.keys() == other.keys() and one["flip"] == other["flip"]
        assert one["l1"] == pytest.approx(other["l1"], rel=1e-4)
    assert {look["attack_iterations"] for look in rows[0]} == {2, 4, 8}


def test_a_trial_of_tune_measures_transfer_where_there_are_others_to_ask():
    ground = replace(toy_ground(4), unseen={"same": ToyClassifier(), "other": lambda image: -ToyClassifier()(image)})
    rows = attempt(ground, 1, search.setting_of(ground.config), grid(ground)[0])
    told = [made["transfer"] for made in rows if made["flip"] > 0]
    assert told and all(0 <= share <= 1 for share in told)


def test_tune_refines_as_given_only_where_the_attack_s_noise_is_as_given():
    ground = toy_ground(1, refine_timestep_respacing="20", refine_time_fraction=0.2)
    given = {"refine_timestep_respacing": "20", "refine_time_fraction": 0.2}
    setting = search.setting_of(ground.config)
    assert refinements(ground, setting)[0] == given
    assert given not in refinements(ground, setting | noise_flags(0.1, 2, 100))


def test_tune_chooses_by_flips_then_transfer_or_validity_and_of_equals_the_least_change():
    sure, loud = row(validity=0.9, l1=0.05), row(validity=0.92, l1=0.09)
    assert choose([loud, sure, row(validity=0.4, l1=0.01), row(flip=0.9, validity=1.0)]) is sure
    convincing = row(transfer=0.8, validity=0.1)
    assert choose([convincing, row(transfer=0.3, validity=1.0), row(transfer=None, flip=0.2)]) is convincing
    most = row(flip=0.5)
    assert choose([row(flip=0.25, validity=1.0), most]) is most


def test_the_neighbours_in_tune_differ_in_one_thing_and_survive_the_filter():
    ground, strengths = toy_ground(1), [strength(0.1), strength(1 / 3), strength(0.5)]
    own = {name: row()[name] for name in FLAGS}
    noise = {"timestep_respacing", "sampling_time_fraction"}
    changed = [
        {name for name in FLAGS if one[name] != own[name]} for one in search.neighbours(ground, row(), strengths)
    ]
    assert all(names <= noise or len(names) == 1 for names in changed)
    assert set().union(*changed) == {*FLAGS}
    ends = [strength(1 / 3), strength(0.5, kept=0.9)]
    assert not any(noise & {n for n in FLAGS if one[n] != own[n]} for one in search.neighbours(ground, row(), ends))
    early = row(attack_iterations=2)
    assert all(one["attack_iterations"] == 8 for one in search.neighbours(ground, early, strengths))


def climbed(monkeypatch, folder, stopped_at=0, **changes) -> tuple[search.Tuned, list[dict]]:
    """A search with trials that are made up: a step of 32 and a weight of 0.009 are best, and every setting flips."""
    tried = []

    def made_up(ground, number, setting, fresh):
        if number == stopped_at:
            raise KeyboardInterrupt
        tried.append(setting)
        off = abs(setting["attack_step"] - 32) / 32 + abs(setting["dist_l1"] - 0.009) * 100
        own = {name: value for name, value in setting.items() if name != "attack_iterations"}
        return [row(trial=number, **own, at_most=setting["attack_iterations"], validity=1 / (1 + off), n=1000)]

    monkeypatch.setattr(search, "attempt", made_up)
    monkeypatch.setattr("ace_counterfactuals.core.tuning.evidence.draw_trials", lambda *_: Figure(figsize=(0.1, 0.1)))
    monkeypatch.setattr(search, "open_ground", lambda config: toy_ground(2, dist_l1=0.001))
    settings = {"output_path": str(folder), "budget": "60trials", **changes}
    return search.tune(from_dict(TuneConfig, settings)), tried


def test_tune_goes_from_the_best_to_its_neighbours_until_none_is_left(monkeypatch, tmp_path):
    found, tried = climbed(monkeypatch, tmp_path)
    assert (found.best["attack_step"], found.best["dist_l1"]) == (32, 0.009)
    assert len(tried) == found.trials < 60 and len({tuple(one.values()) for one in tried}) == len(tried)
    assert found.start["attack_step"] == 8 and found.start["trial"] == 1


def test_tune_goes_on_from_what_was_tried_and_ends_with_the_same_preset_whenever_it_was_stopped(monkeypatch, tmp_path):
    whole, tried = climbed(monkeypatch, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        climbed(monkeypatch, tmp_path / "parts", stopped_at=5)
    assert (tmp_path / "parts/tuning/trials.md").exists() and (tmp_path / "parts/tuned.yaml").exists()
    _, second = climbed(monkeypatch, tmp_path / "parts")
    assert second == tried[4:]
    parts = Evidence(tmp_path / "parts")
    for name in ("preset", "table"):
        assert getattr(parts, name).read_bytes() == getattr(Evidence(tmp_path / "whole"), name).read_bytes()
    assert whole.preset == tmp_path / "whole/tuned.yaml"


def test_tune_begins_anew_where_it_is_told_or_settings_differ_or_the_table_is_damaged(monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "ace_counterfactuals")
    table = Evidence(tmp_path).table

    def begins_anew(why, **changes):
        caplog.clear()
        _, tried = climbed(monkeypatch, tmp_path, budget="2trials", **changes)
        assert len(tried) == 2 and "begins anew" in caplog.text and why in caplog.text

    climbed(monkeypatch, tmp_path, budget="2trials")
    begins_anew("overwrite", overwrite=True)
    (table.parent / "made_with.yaml").write_text("made with others\n")
    begins_anew("other settings")
    table.write_text(table.read_text().replace("8.0", "eight"))
    begins_anew("attack_step eight")


def test_the_time_of_earlier_trials_counts_in_the_budget_of_tune():
    setting, tried = {"attack_iterations": 8}, [row(seconds=50.0), row(seconds=50.0, dist_l1=0.5, trial=2)]
    assert search.is_over(tried, setting, SearchConfig(budget="2m"))
    assert not search.is_over(tried, setting, SearchConfig(budget="3m"))
    assert search.is_over(tried, {"attack_iterations": 80}, SearchConfig(budget="3m"))
    assert not search.is_over([], setting, SearchConfig(budget="1s"))


@pytest.mark.parametrize(
    ("text", "limit"), [("90s", (90, float("inf"))), ("1.5h", (5400, float("inf"))), ("8 trials", (float("inf"), 8))]
)
def test_the_budget_of_tune_is_a_time_or_a_number_of_trials(text, limit):
    assert parse(TuneConfig, "", ["--budget", text]).search.limit == limit


@pytest.mark.parametrize("text", ["10", "0m", "soon", "-3m", "1.5trials", "0.0h"])
def test_a_budget_of_tune_that_is_none_is_refused(text):
    with pytest.raises(FlagError, match="wanted a time such as 90s"):
        parse(TuneConfig, "", [f"--budget={text}"])


@pytest.mark.parametrize(("size", "like"), [(32, "small"), (64, "small"), (128, "photo")])
def test_tune_starts_from_a_preset_by_the_size_where_nothing_is_given(size, like):
    preset = read_preset(MainConfig, like)
    assert start_of(size, {}, {"dataset": "Folder"}) == preset
    typed = {"attack_step": 3.0, "seed": 5}
    assert start_of(size, typed, {}) == {name: preset[name] for name in preset.keys() - {"attack_step"}}
    assert start_of(size, {}, {"attack_step": 3.0}) == {}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Twelve pictures without labels, of which any other class than the predicted one is wanted."""
    made = Workshop(tmp_path_factory.mktemp("shop"))
    for number, path in enumerate(sorted(made.data.rglob("*.png")) * 2):
        (made.folder / f"flat/{number:02d}.png").parent.mkdir(exist_ok=True)
        (made.folder / f"flat/{number:02d}.png").write_bytes(path.read_bytes())
    write_classifier(made.folder / "unseen.pt", seed=3)
    return made


def words(shop, **changes) -> list[str]:
    own = {
        "data_dir": shop.folder / "flat",
        "output_path": shop.folder / "tuned",
        "budget": "1trials",
        "num_samples": 8,
    }
    own |= {"attack_iterations": 2, "attack_filter": "one-step", "timestep_respacing": "4", "batch_size": 16}
    own |= {"sampling_time_fraction": 0.5, "unseen": shop.folder / "unseen.pt"}
    return shop.arguments(**own | changes)


@pytest.mark.slow
def test_tune_leaves_a_preset_with_its_evidence_and_tells_how_to_go_on(shop, capsys):
    assert program.main(words(shop)) == 0
    told, tuned = capsys.readouterr().out, shop.folder / "tuned"
    assert {path.name for path in (tuned / "tuning").iterdir()} >= {
        "filter.png",
        "trials.csv",
        "trials.md",
        "trials.png",
    }
    command = shlex.split(told.rpartition("go on with: ")[2])
    assert command[:4] == ["python", "main.py", "--preset", str(tuned / "tuned.yaml")]
    config, typed = parse(MainConfig, "", command[2:]), parse(TuneConfig, "", words(shop)).main
    assert config.attack.attack_filter == "one-step" and config.attack.attack_iterations in (1, 2)
    config = replace(config, data=replace(config.data, num_samples=8))
    same = {"data", "weights", "model", "diffusion"}
    assert all(getattr(config, part) == getattr(typed, part) for part in same)
    assert "flips" in told and "on 8 pictures: flips" in (tuned / "tuned.yaml").read_text()
    assert program.main(words(shop)) == 0
    assert capsys.readouterr().out == told, "nothing is left to try within the budget"


def test_tune_names_the_batch_where_memory_is_too_small(monkeypatch, tmp_path):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(search, "try_filters", full)
    with pytest.raises(FlagError, match="too many pictures at once") as caught:
        climbed(monkeypatch, tmp_path)
    assert caught.value.field == "batch_size"


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"num_samples": 7}, "num_samples", "wanted 8 to 16"),
        ({"budget": "1s", "attack_iterations": 10**6}, "budget", "a trial takes about"),
        ({"attack_method": "None"}, "attack_method", "nothing to tune"),
        ({"label_target": "hat"}, "label_target", "no label of"),
    ],
)
def test_a_mistake_in_tune_is_one_line_with_the_remedy(shop, changes, field, said):
    with pytest.raises(FlagError, match=said) as caught:
        program.main(words(shop, **changes) + ["--overwrite", "True"])
    assert caught.value.field == field


def test_tune_refuses_the_attacked_classifier_for_an_unseen_one_and_too_few_pictures(shop):
    with pytest.raises(FlagError, match="is the classifier that is attacked"):
        program.main(words(shop, unseen=shop.classifier))
    with pytest.raises(FlagError, match="of 6 pictures can be tried.*wanted 8 to 16"):
        program.main(words(shop, data_dir=shop.data))


def test_tune_leaves_out_pictures_that_the_classifier_gets_wrong_or_sees_as_the_target(shop):
    from ace_counterfactuals.core.runs.setup import open_images

    config = from_dict(MainConfig, to_dict(parse(TuneConfig, "", words(shop)).main) | {"label_target": 2})
    images = open_images(config)

    def classifier(image):
        return 10 * torch.nn.functional.one_hot((image.mean((1, 2, 3)) * 3000).long() % 3, 3).float()

    seen = [predict(classifier(images[i].image[None])).item() for i in range(len(images))]
    records = [replace(record, label=[0, 0, -1][i % 3]) for i, record in enumerate(images.records)]
    wanted = [i for i, label in enumerate(seen) if label != 2 and records[i].label in (-1, label)]
    several = replace(images, records=records * 8)
    found = choose_pictures(several, config, classifier, torch.device("cpu"))
    assert [sample.index for sample in found] == (wanted * 8)[:8]
