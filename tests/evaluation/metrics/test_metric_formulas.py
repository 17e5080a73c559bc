"""Metrics whose value is known: by closed form, by construction, by symmetry."""

import numpy as np
import pytest
import torch
from torch import nn

from ace_counterfactuals.core.evaluation import gaussians
from ace_counterfactuals.core.evaluation.metrics import cd, cout, distances, fva, mnac
from tests.support.gaussians import from_covariance, pytorch_fids


def gaussian(mean, covariance) -> gaussians.Gaussian:
    return from_covariance(np.array(mean, float), np.array(covariance, float))


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (([0], [[1]]), ([3], [[4]]), 9 + (1 - 2) ** 2),
        (([0, 0], np.diag([1, 4])), ([1, 2], np.diag([9, 16])), 5 + 4 + 4),
        (([0, 0], np.diag([1, 0])), ([0, 0], np.diag([4, 0])), 1),
        (([0, 0], np.diag([1, 0])), ([0, 0], np.diag([0, 1])), 2),
        (([1, 1], np.zeros((2, 2))), ([0, 0], np.zeros((2, 2))), 2),
        (([0, 0], [[2, 1], [1, 2]]), ([0, 0], [[2, 1], [1, 2]]), 0),
    ],
)
def test_the_frechet_distance_of_known_gaussians_singular_ones_too(a, b, expected):
    assert gaussians.frechet_distance(gaussian(*a), gaussian(*b)) == pytest.approx(expected, abs=1e-12)
    assert gaussians.frechet_distance(gaussian(*b), gaussian(*a)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [5, 40])
def test_a_fit_has_the_unbiased_covariance_with_fewer_pictures_than_features_and_with_more(n):
    features = np.random.default_rng(0).normal(size=(n, 12))
    fitted = gaussians.fit(features)
    np.testing.assert_allclose(fitted.root.T @ fitted.root, np.cov(features, rowvar=False), atol=1e-12)
    np.testing.assert_allclose(fitted.mean, features.mean(0))


def test_the_distance_from_features_is_the_one_from_covariances():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 40)), rng.normal(size=(90, 40)) + 1
    from_features = gaussians.frechet_distance(gaussians.fit(a), gaussians.fit(b))
    known = [gaussian(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    assert from_features == pytest.approx(gaussians.frechet_distance(*known), rel=1e-9)


@pytest.mark.filterwarnings("ignore")  # of SciPy, for its arguments
@pytest.mark.parametrize(("count", "near"), [(300, 1e-9), (7, 1e-4)], ids=["regular", "singular"])
def test_fid_has_pytorch_fids_digits(count, near):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(count, 32)), 2 * rng.normal(size=(count, 32)) + 1
    given = [moment for x in (a, b) for moment in (x.mean(0), np.cov(x, rowvar=False))]
    theirs = pytorch_fids().calculate_frechet_distance(*given)
    assert gaussians.fid(a, b) == pytest.approx(theirs, rel=near)


def test_fid_is_the_frechet_distance_where_the_covariances_are_regular():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 6)), 2 * rng.normal(size=(300, 6)) + 1
    assert gaussians.fid(a, b) == pytest.approx(gaussians.distance(a, b), rel=1e-9)


def test_fid_of_fewer_pictures_than_features_is_still_near():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 32)), rng.normal(size=(7, 32))
    assert gaussians.fid(a, b) == pytest.approx(gaussians.distance(a, b), rel=1e-4)


NAMES = [f"{i:07d}.png" for i in range(11)]


def test_a_split_divides_the_names_into_two_halves_and_its_seed_decides_which():
    a, b = gaussians.split_names(NAMES, 0)
    assert (len(a), len(b)) == (5, 6) and a | b == set(NAMES) and not a & b
    assert gaussians.split_names(NAMES[::-1], 0) == (a, b)
    assert gaussians.split_names(NAMES, 1) != (a, b)


def across(originals, changed, names, **more) -> np.ndarray:
    sides = gaussians.Sides(originals, NAMES[: len(originals)], changed, names)
    return gaussians.split_distances(sides, **more)[1]


def test_split_fid_compares_originals_of_one_half_with_counterfactuals_of_the_other():
    rng = np.random.default_rng(0)
    originals, changed = rng.normal(size=(11, 3)), rng.normal(size=(9, 3))
    values = across(originals, changed, NAMES[2:], seed=3, splits=1)
    a, b = (sorted(NAMES.index(name) for name in half) for half in gaussians.split_names(NAMES, 3))
    rows = [[i - 2 for i in half if i >= 2] for half in (a, b)]
    expected = [gaussians.distance(originals[a], changed[rows[1]]), gaussians.distance(originals[b], changed[rows[0]])]
    np.testing.assert_allclose(values, expected)


def test_split_fid_of_identical_sets_is_the_same_in_both_directions():
    features = np.random.default_rng(0).normal(size=(11, 3))
    values = across(features, features, NAMES, seed=0)
    assert len(values) == 20
    np.testing.assert_allclose(values[::2], values[1::2])
    assert across(np.ones((11, 3)), np.ones((11, 3)), NAMES, seed=0).max() == 0


def test_a_half_without_two_pictures_has_no_split_distance():
    features = np.random.default_rng(0).normal(size=(3, 3))
    assert np.isnan(across(features, features, NAMES[:3], seed=0)).all()


def test_a_face_is_verified_above_a_cosine_of_one_half_strictly():
    others = np.array([[1, 1, 1, 1 + 1e-6], [1, 1, 1, 1], [1, 1, 1, 1 - 1e-6], [-1, 0, 0, 0], [1, 0, 0, 0]])
    same, cosines = fva.measure(np.array([[1.0, 0, 0, 0]] * 5), others)
    assert same.tolist() == [False, False, True, False, True] and cosines[[1, 3, 4]].tolist() == [0.5, -1, 1]


def test_the_cosine_ignores_lengths_and_is_zero_for_a_zero_vector():
    a, b = np.array([[1.0, 0], [1, 1], [0, 0]]), np.array([[0.0, 2], [3, 3], [1, 0]])
    np.testing.assert_allclose(fva.cosines(a, b), [0, 1, 0], atol=1e-15)


def test_mnac_counts_the_decisions_that_change():
    before = np.array([[0.2, 0.8, 0.5], [0.9, 0.9, 0.9]])
    after = np.array([[0.7, 0.1, 0.51], [0.9, 0.6, 0.5]])
    assert mnac.changes(before, after).tolist() == [3, 1]


def test_the_correlation_is_numpys_and_zero_where_it_is_undefined():
    values = np.random.default_rng(0).integers(0, 2, (50, 5))
    values[:, 3] = 1
    expected = [np.corrcoef(values[:, i], values[:, 2])[0, 1] if i != 3 else 0 for i in range(5)]
    np.testing.assert_allclose(cd.correlations(values, 2), expected, atol=1e-12)
    assert not cd.correlations(values, 3).any()


def test_cd_is_zero_where_attributes_change_together_as_they_occur_together():
    changed = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    training = cd.correlations(changed, 0)
    assert cd.correlation_difference(np.zeros_like(changed), changed, training, 0) == pytest.approx(0, abs=1e-12)


def test_cd_adds_up_the_correlations_that_only_the_counterfactuals_have():
    changed = np.array([[1, 1, 0], [0, 0, 1]])  # attribute 1 follows the query, attribute 2 goes against it
    assert cd.correlation_difference(np.zeros_like(changed), changed, np.array([1.0, 0.0, 0.0]), 0) == pytest.approx(2)


def test_cd_of_a_query_that_never_changes_is_the_sum_of_the_training_correlations():
    same = np.ones((3, 2), bool)
    assert cd.correlation_difference(same, same, np.array([1.0, -0.25]), 0) == 1.25


class FirstRow(nn.Module):
    """Binary: its probability is the brightness of the first row."""

    def forward(self, images):
        return torch.logit(images[:, :, 0].double().mean((1, 2)))


def test_the_most_changed_pixel_goes_first_and_equals_keep_their_order():
    image, changed = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    changed[0, 0] = torch.tensor([[10.0, 0], [30, 0]]) / 255
    changed[0, 1, 1, 1] = 30 / 255
    assert cout.insertion_ranks(image, changed)[0].tolist() == [[2, 3], [0, 1]]


def test_cout_of_a_network_that_looks_at_one_row_is_a_ramp_and_then_flat():
    image, changed = torch.zeros(1, 3, 10, 10), torch.zeros(1, 3, 10, 10)
    changed[:, :, 0] = 1  # ten of a hundred pixels, in steps of two: probability 0, .2, ... 1 and then 1
    scores = cout.insertion_scores(FirstRow(), image, changed, torch.tensor([0]), torch.tensor([1]))
    assert scores.shape == (1, 51)
    torch.testing.assert_close(scores[0, :6], torch.tensor([-1, -0.6, -0.2, 0.2, 0.6, 1]).double())
    assert (scores[0, 5:] == 1).all()
    assert cout.areas(scores, 100).item() == pytest.approx(0.9)


def test_cout_of_an_unchanged_picture_is_its_constant_difference():
    image = torch.full((1, 3, 10, 10), 0.25)
    scores = cout.insertion_scores(FirstRow(), image, image, torch.tensor([0]), torch.tensor([1]))
    assert cout.areas(scores, 100).item() == pytest.approx(-0.5)


def test_cout_takes_any_two_classes():
    def classifier(images):
        return torch.log(torch.tensor([[0.1, 0.2, 0.7]])).expand(len(images), 3)

    image = torch.rand(2, 3, 4, 4)
    scores = cout.insertion_scores(classifier, image, 1 - image, torch.tensor([2, 0]), torch.tensor([1, 2]))
    torch.testing.assert_close(cout.areas(scores, 16), torch.tensor([-0.5, 0.6]).double(), atol=1e-6, rtol=0)


def test_the_last_step_is_counted_at_full_width_as_published_and_normalising_takes_it_back():
    pixels = 64 * 64  # 51 steps of 81, the last of 46
    ones = torch.ones(1, 52, dtype=torch.float64)
    assert cout.areas(ones, pixels).item() == pytest.approx(51 * 81 / 4096)
    assert cout.areas(ones, pixels).item() / cout.total_width(pixels) == pytest.approx(1)
    assert cout.total_width(100) == 1


def test_the_distances_of_a_change_of_one_pixel():
    image, changed = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    changed[0, :2, 1, 1] = torch.tensor([0.75, 1.0])
    assert distances.distances(image, changed)[0].tolist() == pytest.approx([1.75 / 48, 1.25, 1])
