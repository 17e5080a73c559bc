"""Intervals cover the truth in 95 % of experiments, and Frechet distances are freed of their bias."""

import numpy as np
import pytest

from ace_counterfactuals.core.evaluation import gaussians, intervals
from ace_counterfactuals.core.evaluation.gaussians import fid, fit, frechet_distance, moments
from tests.support.gaussians import from_covariance

EXPERIMENTS = 1000
DRAWS = {
    "normal": (lambda rng, n: rng.normal(2, 1, n), 2),
    "exponential": (lambda rng, n: rng.exponential(1, n), 1),
    "cosines": (lambda rng, n: rng.beta(5, 1, n), 5 / 6),
    "counts": (lambda rng, n: rng.poisson(3, n), 3),
}


def coverage(inside: list[bool]) -> float:
    assert len(inside) == EXPERIMENTS
    return sum(inside) / EXPERIMENTS


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [16, 100])
def test_metrics_intervals_of_means_cover_the_truth(name, n):
    draw, truth = DRAWS[name]
    rng = np.random.default_rng(0)
    found = [intervals.mean_interval(draw(rng, n), seed) for seed in range(EXPERIMENTS)]
    assert 0.93 <= coverage([low <= truth <= high for low, high in found]) <= 0.97


def test_metrics_intervals_of_means_cover_the_truth_of_fifty_cosines():
    rng = np.random.default_rng(1)
    found = [intervals.mean_interval(rng.beta(5, 1, 50), seed) for seed in range(200)]
    assert 0.9 <= sum(low <= 5 / 6 <= high for low, high in found) / 200 <= 0.99


@pytest.mark.parametrize("share, n", [(0.5, 48), (0.9, 100), (0.97, 1000)])
def test_metrics_intervals_of_shares_cover_the_truth(share, n):
    counts = np.random.default_rng(0).binomial(n, share, EXPERIMENTS)
    found = [intervals.wilson(count, n) for count in counts]
    assert 0.93 <= coverage([low <= share <= high for low, high in found]) <= 0.97


def test_the_interval_of_a_mean_is_seeded_and_needs_three_pictures():
    values = np.random.default_rng(0).normal(size=20)
    assert intervals.mean_interval(values, 1) == intervals.mean_interval(values, 1)
    assert intervals.mean_interval(values, 1) != intervals.mean_interval(values, 2)
    assert intervals.mean_interval(values[:7]) is None
    assert intervals.mean_interval(np.full(8, 0.25)) == (0.25, 0.25)


class Pairs:
    """Gaussian features of originals, and of counterfactuals that follow their originals; nine in ten are flipped."""

    WIDTH, SHIFT, NOISE = 4, 0.3, 0.5

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.mixing = self.rng.normal(size=(self.WIDTH, self.WIDTH)) / 2

    def truth(self) -> float:
        covariance = self.mixing @ self.mixing.T
        moved = covariance + self.NOISE**2 * np.eye(self.WIDTH)
        shift = np.full(self.WIDTH, self.SHIFT)
        return frechet_distance(from_covariance(0 * shift, covariance), from_covariance(shift, moved))

    def draw(self, n: int) -> gaussians.Sides:
        originals = self.rng.normal(size=(n, self.WIDTH)) @ self.mixing.T
        changed = originals + self.SHIFT + self.NOISE * self.rng.normal(size=originals.shape)
        flipped = self.rng.random(n) < 0.9
        names = [f"{i:07d}.png" for i in range(n)]
        return gaussians.Sides(
            originals, names, changed[flipped], [n for n, f in zip(names, flipped, strict=True) if f]
        )


@pytest.mark.slow
def test_metrics_intervals_of_frechet_distances_cover_the_truth():
    """The limit's about the truth; the distance's and the split distance's, which are biased, about their mean."""
    pairs, found = Pairs(), []
    for _ in range(EXPERIMENTS):
        sides = pairs.draw(150)
        whole = gaussians.distance(sides.originals, sides.counterfactuals)
        within, splits = gaussians.split_distances(sides, 4)
        error = within.std(ddof=1)
        limit, line = gaussians.extrapolate(sides, 4)
        found.append((whole, error, splits.mean(), np.hypot(error, splits.std(ddof=1) / 20**0.5), limit))
        found[-1] += (np.hypot(error, line),)
    whole, error, split, split_error, limit, limit_error = np.array(found).T
    truths = whole.mean(), split.mean(), pairs.truth()
    for values, errors, truth in zip((whole, split, limit), (error, split_error, limit_error), truths, strict=True):
        low, high = intervals.around(values, errors)
        assert 0.93 <= coverage(list((low <= truth) & (truth <= high))) <= 0.97


def test_fid_infinity_is_free_of_the_bias_of_fid():
    pairs = Pairs(1)
    found = [(gaussians.distance(s.originals, s.counterfactuals), gaussians.extrapolate(s, 4)[0])
             for s in (pairs.draw(48) for _ in range(150))]  # fmt: skip
    whole, limit = np.mean(found, 0)
    error = np.std(found, 0)[1] / 150**0.5
    assert whole - pairs.truth() > 3 * error
    assert abs(limit - pairs.truth()) < 3 * error


def test_fid_infinity_of_copies_is_zero_and_of_few_pictures_undefined():
    sides = Pairs().draw(64)
    copies = gaussians.Sides(sides.originals, sides.original_names, sides.originals, sides.original_names)
    assert gaussians.extrapolate(copies, 4) == pytest.approx((0, 0), abs=1e-9)
    assert gaussians.split_distances(copies, 4)[0] == pytest.approx(np.zeros(20), abs=1e-9)
    assert gaussians.extrapolate(Pairs().draw(20), 4) is None


def test_halves_are_of_an_original_and_its_own_counterfactual():
    names = ["a", "b", "c", "d"]
    sides = gaussians.Sides(np.arange(4)[:, None], names, 10 + np.arange(3)[:, None], names[:3])
    originals, changed = sides.of({"b", "d"})
    assert originals[:, 0].tolist() == [1, 3] and changed[:, 0].tolist() == [11]


def test_features_are_summed_up_a_part_at_a_time(monkeypatch):
    features = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    others = features[::-1] * 2
    whole, distance = fid(features, others), frechet_distance(fit(features), fit(others))
    monkeypatch.setattr("ace_counterfactuals.core.evaluation.gaussians.PART", 7)
    assert fid(features, others) == pytest.approx(whole, rel=1e-9)
    assert frechet_distance(fit(features), fit(others)) == pytest.approx(distance, rel=1e-9)
    np.testing.assert_allclose(moments(features)[1], np.cov(features.astype(float), rowvar=False), rtol=1e-10)
