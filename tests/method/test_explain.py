"""One batch through the whole explanation: everything runs, every option counts, failures are named."""

import itertools

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.method.attacks import ATTACKS, cw_decode
from ace_counterfactuals.core.method.checks import NonFiniteError
from ace_counterfactuals.core.method.explain import explain, refine
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import chain_of
from tests.support.toys import ToyClassifier, ToyDenoiser, pictures, sampling_config, toy_diffusion, toy_task, toy_unet

DIFFUSION = toy_diffusion()
DENOISER = ToyDenoiser()
CLASSIFIERS = {"binary": ToyClassifier(binary=True), "multi-class": ToyClassifier()}
WAYS = {
    "plain": {"attack_joint": False},
    "chain": {},
    "checkpointed": {"attack_joint_checkpoint": True},
    "shortcut": {"attack_joint_shortcut": True},
    "one-step": {"attack_filter": "one-step"},
}


def run(image=None, classifier="multi-class", denoiser=DENOISER, **options):
    """``explain`` on toys; the options are arguments of ``explain``, fields of ``Task`` and settings."""
    asked = {name: options.pop(name) for name in ("label", "indices", "region", "on_iteration") if name in options}
    task = toy_task(classifier=CLASSIFIERS.get(classifier, classifier), denoiser=denoiser, **options)
    return explain(pictures(2) if image is None else image, task, **asked)


COMBINATIONS = [
    combination
    for combination in itertools.product(("binary", "multi-class"), (-1, 1), ATTACKS, WAYS)
    if combination[:3] != ("multi-class", -1, "C&W")
]


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize(("classifier", "target", "method", "way"), COMBINATIONS)
def test_every_combination_gives_pictures_in_range(classifier, target, method, way, stochastic):
    image = pictures(2)
    found = run(
        image,
        classifier,
        label_target=target,
        attack_method=method,
        attack_iterations=1,
        sampling_stochastic=stochastic,
        sampling_time_fraction=0.2,
        **WAYS[way],
    )
    for picture in (found.pre_explanation, found.counterfactual, found.noised):
        assert picture.shape == image.shape and picture.dtype == torch.float32
        assert picture.isfinite().all() and picture.min() >= 0 and picture.max() <= 1
    assert found.mask.shape == found.keep.shape == (2, 1, 8, 8)
    assert found.mask.min() >= 0 and found.mask.max() <= 1 and found.keep.dtype == torch.bool
    assert (found.target is None) == (classifier == "multi-class" and target == -1)
    shape = (2,) if classifier == "binary" else (2, 3)
    assert found.logits.shape == found.pre_logits.shape == found.cf_logits.shape == shape


def test_the_logits_are_the_classifiers_on_each_picture():
    found = run()
    for logits, picture in (
        (found.logits, found.image),
        (found.pre_logits, found.pre_explanation),
        (found.cf_logits, found.counterfactual),
    ):
        assert torch.equal(logits, CLASSIFIERS["multi-class"](picture))
    assert torch.equal(found.prediction, predict(found.logits))


def test_a_plain_attack_flips_the_prediction():
    found = run(attack_joint=False, attack_iterations=20, classifier="binary")
    assert torch.equal(predict(found.pre_logits), found.target)


def test_a_targeted_attack_raises_the_targets_probability():
    found = run(attack_iterations=10, attack_joint=False, label_target=2)
    assert (found.pre_logits.softmax(1)[:, 2] > found.logits.softmax(1)[:, 2]).all()


def test_an_untargeted_attack_lowers_the_predictions_probability():
    found = run(attack_iterations=10, attack_joint=False)
    before, after = (
        logits.softmax(1).gather(1, found.prediction[:, None]) for logits in (found.logits, found.pre_logits)
    )
    assert (after < before).all()


def test_without_an_attack_the_pre_explanation_is_the_picture():
    image = pictures(2)
    found = run(image, attack_method="None")
    assert torch.equal(found.pre_explanation, image)
    assert not found.keep.any()


def test_a_misclassified_picture_is_sent_to_its_true_label():
    prediction = run(attack_method="None").prediction
    wrong = (prediction + 1) % 3
    assert torch.equal(run(label=wrong, label_target=2, attack_method="None").target, wrong)


def test_kept_pixels_are_the_originals_to_the_bit():
    found = run(sampling_inpaint=0.9, sampling_dilation=1, attack_method="GD", attack_step=100.0)
    keep = found.keep.expand_as(found.image)
    assert keep.any() and not keep.all()
    assert torch.equal(found.counterfactual[keep], found.image[keep])


CHANGES = {
    "attack_method": "GD",
    "attack_iterations": 3,
    "attack_epsilon": 4.0,
    "attack_step": 2.0,
    "attack_joint": False,
    "attack_joint_shortcut": True,
    "attack_filter": "one-step",
    "dist_l1": 0.5,
    "dist_l2": 5.0,
    "sampling_time_fraction": 0.5,
    "sampling_stochastic": False,
    "sampling_inpaint": 0.0,
    "sampling_dilation": 3,
    "seed": 5,
    "indices": [1, 2],
    "label_target": 2,
}


@pytest.fixture(scope="module")
def plain_run():
    return run(**PLAIN)


PLAIN = {"label_target": 1, "sampling_inpaint": 0.5, "sampling_dilation": 1}


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_changes_something(plain_run, option):
    found = run(**{**PLAIN, option: CHANGES[option]})
    assert not torch.equal(found.counterfactual, plain_run.counterfactual)


@pytest.mark.parametrize("schedule", ["step", "linear"])
def test_every_distance_schedule_changes_something(schedule):
    def distant(schedule):
        return run(dist_l1=0.5, dist_schedule=schedule, attack_method="GD", attack_iterations=3).pre_explanation

    assert not torch.equal(distant(schedule), distant("none"))


@pytest.mark.parametrize(
    "changes", [{"clip_denoised": False}, {"timestep_respacing": "20"}, {"noise_schedule": "cosine"}]
)
def test_every_option_of_the_chain_changes_something(plain_run, changes):
    diffusion = toy_diffusion(changes.pop("timestep_respacing", "10"), **changes)
    found = run(**PLAIN, diffusion=diffusion)
    assert not torch.equal(found.counterfactual, plain_run.counterfactual)


@pytest.mark.parametrize(
    "changes",
    [{"attack_joint_checkpoint": True}, {"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": 2}],
)
def test_checkpointing_changes_nothing(changes):
    image = pictures(2, torch.float64)
    networks = {"classifier": ToyClassifier(dtype=torch.float64), "denoiser": ToyDenoiser(torch.float64)}
    found, expected = (run(image, **networks, **options) for options in (changes, {}))
    # In float64 the gradients differ by 1e-12, which no sign notices, and two passes of the filter amplify little.
    torch.testing.assert_close(found.counterfactual, expected.counterfactual, atol=1e-9, rtol=0)


def test_checkpoint_with_shortcut_is_the_shortcut():
    both = run(attack_joint_shortcut=True, attack_joint_checkpoint=True)
    assert torch.equal(both.counterfactual, run(attack_joint_shortcut=True).counterfactual)


@pytest.mark.parametrize("way", WAYS)
def test_a_filter_of_no_steps_is_an_attack_on_the_classifier(way):
    found = run(sampling_time_fraction=0.0, **WAYS[way])
    assert torch.equal(found.pre_explanation, run(attack_joint=False).pre_explanation)


def test_new_noise_is_drawn_at_each_iteration():
    starts = []

    def denoiser(x, timesteps, classes=None):
        if timesteps[0] == DIFFUSION.timestep_map.values[2]:
            starts.append(x.detach())
        return torch.zeros(len(x), 6, 8, 8) + 0 * x.repeat(1, 2, 1, 1)

    run(denoiser=denoiser, attack_step=0.0, attack_iterations=3)
    assert len(starts) == 4
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(starts, 2))


def test_a_conditional_model_denoises_towards_the_target():
    seen = []
    network = toy_unet(class_cond=True, num_classes=3)

    def denoiser(x, timesteps, classes):
        seen.append(classes)
        return network(x, timesteps, classes)

    found = run(denoiser=denoiser, class_cond=True, label_target=2)
    assert seen and all(torch.equal(classes, found.target) for classes in seen)


def test_the_default_indices_are_the_places_in_the_batch():
    assert torch.equal(run(indices=[0, 1]).counterfactual, run().counterfactual)


def test_nothing_of_the_result_holds_a_graph():
    found = run()
    assert not any(value.requires_grad for value in vars(found).values() if value is not None)


def test_networks_that_still_train_get_no_gradients():
    classifier, denoiser = ToyClassifier().requires_grad_(True), ToyDenoiser().requires_grad_(True)
    run(classifier=classifier, denoiser=denoiser)
    assert all(parameter.grad is None for network in (classifier, denoiser) for parameter in network.parameters())


def test_any_two_callables_are_networks_enough():
    found = run(
        classifier=lambda image: image.mean((1, 2, 3)) - 0.5,
        denoiser=lambda x, timesteps, classes: torch.cat([0.1 * x, torch.zeros_like(x)], 1),
    )
    assert found.logits.ndim == 1


def test_pictures_need_not_be_square():
    image = torch.rand(1, 3, 8, 16)
    assert run(image, classifier=lambda x: x.mean((1, 2, 3)) - 0.5).counterfactual.shape == image.shape


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_a_target_outside_the_classifiers_outputs_is_refused(method):
    with pytest.raises(ValueError, match="target 3 is outside the classifier's outputs, 0 to 2"):
        run(label_target=3, attack_method=method)


def test_an_untargeted_carlini_wagner_attack_is_refused():
    with pytest.raises(FlagError, match="targeted") as caught:
        run(attack_method="C&W")
    assert caught.value.field == "attack_method"


@pytest.mark.parametrize(("fraction", "steps"), [(0.0, 0), (0.1, 1), (0.25, 2), (0.3, 3), (1.0, 10)])
def test_the_filters_steps_are_a_share_of_the_respaced_chain_rounded_down(fraction, steps):
    assert chain_of(sampling_config(sampling_time_fraction=fraction), DIFFUSION) == (DIFFUSION, steps)


def test_a_share_of_less_than_one_step_is_refused_with_the_least_that_would_do():
    with pytest.raises(FlagError, match="0.05 of 10 .* choose at least 0.1") as caught:
        chain_of(sampling_config(sampling_time_fraction=0.05), DIFFUSION)
    assert caught.value.field == "sampling_time_fraction"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"sampling_time_fraction": 0.05}, "sampling_time_fraction"),
        ({"refine_time_fraction": 0.05}, "refine_time_fraction"),
        ({"refine_timestep_respacing": "2"}, "refine_time_fraction"),
        ({"refine_timestep_respacing": "x"}, "refine_timestep_respacing"),
    ],
)
def test_steps_that_there_are_not_are_refused_by_the_setting_that_is_wrong(settings, field):
    with pytest.raises(FlagError) as caught:
        toy_task(**settings)
    assert caught.value.field == field


class Fails:
    """A denoiser that returns NaN for one picture from its n-th call on."""

    def __init__(self, *, picture, call):
        self.picture, self.left = picture, call

    def __call__(self, x, timesteps, classes=None):
        output = DENOISER(x, timesteps)
        self.left -= 1
        if self.left < 0:
            output = output.clone()
            output[self.picture] = torch.nan
        return output


def test_nan_in_the_attack_is_named_with_picture_iteration_and_step():
    def denoiser(x, timesteps, classes=None):
        output = DENOISER(x, timesteps).clone()
        output[1] = torch.where(timesteps[0] == DIFFUSION.timestep_map.values[1], torch.nan, output[1])
        return output

    with pytest.raises(
        NonFiniteError, match="picture 0000008: .* iteration 0 of the attack, at denoising step 1 of 3"
    ) as caught:
        run(denoiser=denoiser, indices=[3, 8])
    assert caught.value.indices == [8]


def test_nan_of_a_later_iteration_is_named_with_that_iteration():
    with pytest.raises(NonFiniteError, match="picture 0000003: .* iteration 2 of the attack, at denoising step 2"):
        run(denoiser=Fails(picture=0, call=6), indices=[3, 8], attack_iterations=5)


def test_of_two_pictures_the_one_that_fails_first_is_named():
    """And stays as it was then, although other iterations follow, whose gradients may be finite again."""
    calls = []

    def classifier(image):
        calls.append(1)
        slopes = {3: (1.0, torch.nan), 5: (torch.nan, 1.0)}.get(len(calls), (1.0, 1.0))  # the first call judges
        return ToyClassifier()(image * torch.tensor(slopes).view(2, 1, 1, 1))

    with pytest.raises(NonFiniteError, match="picture 0000008: .* in iteration 1 of the attack, in the gradient"):
        run(classifier=classifier, indices=[3, 8], attack_iterations=6)
    assert len(calls) == 7


def test_nan_in_the_refinement_is_named():
    with pytest.raises(NonFiniteError, match="picture 0000001: .* in the refinement, at denoising step 2 of 3"):
        run(denoiser=Fails(picture=1, call=6))


def test_a_gradient_that_is_not_finite_is_named_without_a_step():
    def classifier(image):  # the root's slope at 0 is infinite
        return (image * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)).mean((1, 2, 3)).sqrt()

    with pytest.raises(NonFiniteError, match="picture 0000001: .* in iteration 0 of the attack, in the gradient"):
        run(classifier=classifier, attack_joint=False)


@pytest.mark.parametrize("method", ["PGD", "None"])
@pytest.mark.parametrize("place", [0, 1])
def test_nan_from_the_classifier_is_no_prediction(method, place):
    """Its first call is for the original, its last for the counterfactual."""
    own = ToyClassifier()
    calls = {"PGD": 5, "None": 3}[method]
    bad = (0, calls - 1)[place]
    seen = []

    def classifier(image):
        seen.append(image)
        logits = own(image)
        return logits + torch.tensor([[0.0], [torch.nan]]) if len(seen) == bad + 1 else logits

    which = ("original", "counterfactual")[place]
    with pytest.raises(NonFiniteError, match=f"picture 0000008: .* the classifier's output for the {which}"):
        run(classifier=classifier, indices=[3, 8], attack_method=method)


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("class_cond", [True, False])
def test_a_stored_pre_explanation_gives_the_same_explanation_again(class_cond, stochastic):
    denoiser = toy_unet(num_classes=3, class_cond=True) if class_cond else DENOISER
    options = {"denoiser": denoiser, "seed": 5, "class_cond": class_cond, "sampling_stochastic": stochastic}
    found = run(label_target=1, indices=[7, 30], **options)
    again = refine(found.image, found.pre_explanation, toy_task(**options), target=found.target, indices=[7, 30])
    for name, value in vars(found).items():
        assert getattr(again, name) is value or torch.equal(getattr(again, name), value), name


@pytest.mark.parametrize(
    ("flags", "alone", "chain"),
    [
        ({"timestep_respacing": "20", "time_fraction": 0.1}, 0.1, "20"),
        ({"timestep_respacing": "20"}, 0.3, "20"),
        ({"time_fraction": 0.5}, 0.5, "10"),
        ({"time_fraction": 0.0}, 0.0, "10"),
    ],
)
def test_a_refinement_with_steps_of_its_own_is_one_by_itself_with_these(flags, alone, chain):
    usual = run(label_target=1)
    own = {f"refine_{name}": value for name, value in flags.items()}
    found = run(label_target=1, timestep_respacing="10", **own)
    steps = {"timestep_respacing": chain, "sampling_time_fraction": alone}
    by_itself = refine(
        usual.image, usual.pre_explanation, toy_task(diffusion=toy_diffusion(chain), **steps), target=usual.target
    )
    assert torch.equal(found.pre_explanation, usual.pre_explanation)
    assert torch.equal(found.counterfactual, by_itself.counterfactual)
    assert torch.equal(found.noised, by_itself.noised)
    assert not torch.equal(found.counterfactual, usual.counterfactual)


@pytest.mark.parametrize("fraction", [0, 0.3])
def test_a_picture_all_of_which_is_kept_comes_back_to_the_bit(fraction):
    found = run(attack_method="GD", attack_step=100.0)
    task, nowhere = toy_task(sampling_time_fraction=fraction), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    again = refine(found.image, found.pre_explanation, task, target=None, region=nowhere)
    assert again.keep.all() and not torch.equal(found.pre_explanation, found.image)
    assert torch.equal(again.counterfactual, found.image)


def test_a_pre_explanation_of_another_size_is_refused():
    image = pictures(2)
    with pytest.raises(ValueError, match=r"pictures \(2, 3, 8, 8\), but pre-explanations \(2, 3, 8, 4\)"):
        refine(image, image[..., :4], toy_task(), target=None)


def test_a_callback_sees_every_iteration_and_the_attack_goes_on_from_its_variable():
    seen = []
    found = run(attack_iterations=3, attack_method="C&W", label_target=1, on_iteration=seen.append)
    assert [state.iteration for state in seen] == [1, 2, 3]
    assert torch.equal(seen[-1].found, found.pre_explanation)
    assert torch.equal(run(attack_iterations=2, attack_method="C&W", label_target=1).pre_explanation, seen[1].found)
    assert all(torch.equal(cw_decode(state.variable), state.found) for state in seen)
