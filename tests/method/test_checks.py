"""A classifier that an attack cannot follow is found on a few pictures, and told what to do."""

import pytest
import torch
from torch import nn

from ace_counterfactuals.core.method.checks import check_classifier
from tests.support.toys import ToyClassifier, pictures


def cut(image):
    """Knows pictures of another size alone."""
    return image.reshape(len(image), 3, 16, 16).mean((2, 3))


LAYERS = [nn.Conv2d(3, 4, 3), nn.Flatten()]
REFUSED = {
    "dropout in training": (nn.Sequential(*LAYERS, nn.Dropout()), "in training mode: call its eval"),
    "norms of the batch in training": (nn.Sequential(nn.BatchNorm2d(3), *LAYERS), "in training mode: call its eval"),
    "chance": (lambda image: nn.functional.dropout(image.mean((2, 3))), "differ from one call to the next"),
    "norms of the batch": (
        lambda image: image.mean((2, 3)) / image.std(0, correction=0).mean(),
        "differ from one call to the next",
    ),
    "NaN": (lambda image: image.mean((2, 3)) / 0, "NaN or infinity"),
    "a detached answer": (lambda image: image.mean((2, 3)).detach(), "no gradient"),
    "rounding": (lambda image: image.mean((2, 3)).round(), "no gradient"),
    "saturation": (lambda image: (image.mean((2, 3)) * 1e4).sigmoid(), "no gradient"),
    "a dictionary": (lambda image: {"logits": image.mean((2, 3))}, "answers with dict, wanted logits"),
    "a map": (lambda image: image, r"answers with a tensor of \(4, 3, 8, 8\)"),
    "another size": (cut, "fails on pictures of 8 x 8 in 3 channels .*give pictures of the size"),
    "other channels": (nn.Conv2d(1, 4, 3).eval(), "fails on pictures of 8 x 8 in 3 channels"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_classifier_that_an_attack_cannot_follow_is_refused(fault):
    classifier, said = REFUSED[fault]
    with pytest.raises(ValueError, match=said) as refused:
        check_classifier(classifier, pictures())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("binary", "shape"), [(True, (4,)), (False, (4, 3))])
def test_a_sound_classifier_answers_and_is_left_as_it_was(binary, shape):
    classifier, image = ToyClassifier(binary=binary), pictures()
    with torch.no_grad():
        assert check_classifier(classifier.requires_grad_(), image).shape == shape
    assert image.grad is None and all(parameter.grad is None for parameter in classifier.parameters())
