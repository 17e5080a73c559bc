import math

import numpy as np
import pytest

from ace_counterfactuals.guided_diffusion.schedule import make_betas, respace_betas, respaced_steps


@pytest.mark.parametrize(("steps", "first", "last"), [(1000, 1e-4, 0.02), (500, 2e-4, 0.04), (4000, 2.5e-5, 0.005)])
def test_linear_betas_are_evenly_spaced_and_stretched_to_the_number_of_steps(steps, first, last):
    betas = make_betas("linear", steps)
    assert betas == pytest.approx(first + (last - first) * np.arange(steps) / (steps - 1), rel=1e-12)


def test_cosine_betas_give_a_squared_cosine_as_alphas_cumprod():
    steps = 100
    alphas_cumprod = np.cumprod(1 - make_betas("cosine", steps))
    angle = ((np.arange(1, steps) / steps) + 0.008) / 1.008 * math.pi / 2
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert alphas_cumprod[:-1] == pytest.approx(np.cos(angle) ** 2 / start, rel=1e-9)


def test_cosine_betas_are_at_most_0999():
    assert make_betas("cosine", 100)[-1] == 0.999


def test_no_respacing_keeps_every_step():
    assert respaced_steps("", 7) == list(range(7))


def test_a_number_keeps_so_many_steps_from_the_first_to_the_last():
    assert respaced_steps("5", 9) == [0, 2, 4, 6, 8]


def test_fractional_strides_are_rounded():
    assert respaced_steps("4", 9) == [0, 3, 5, 8]


def test_the_stride_is_summed_so_that_the_papers_25_of_500_steps_are_those_it_sampled():
    steps = respaced_steps("25", 500)
    assert len(steps) == 25
    assert steps[:5] == [0, 21, 42, 62, 83]
    assert steps[12] == 249
    assert steps[-1] == 499


def test_a_list_keeps_so_many_steps_of_each_section():
    steps = np.array(respaced_steps("10,10,5", 300))
    assert [np.sum(steps // 100 == section) for section in range(3)] == [10, 10, 5]
    assert {0, 99, 100, 199, 200, 299} <= set(steps)


def test_the_first_sections_are_one_step_longer_where_the_division_leaves_a_rest():
    assert respaced_steps("2,2,2", 11) == [0, 3, 4, 7, 8, 10]


def test_a_section_of_which_one_step_is_taken_gives_its_first():
    assert respaced_steps("1", 500) == [0]
    assert respaced_steps("1,1", 10) == [0, 5]


def test_ddim_takes_the_integer_stride_that_gives_the_number():
    assert respaced_steps("ddim25", 500) == list(range(0, 500, 20))


def test_as_many_steps_as_there_are_keeps_every_step():
    assert respaced_steps("50", 50) == list(range(50))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("respacing", ["", "25", "10,10,5", "ddim25", "1"])
def test_respaced_alphas_cumprod_are_the_full_chains_at_the_kept_steps(schedule, respacing):
    betas = make_betas(schedule, 500)
    steps = respaced_steps(respacing, 500)
    respaced = np.cumprod(1 - respace_betas(betas, steps))
    assert respaced == pytest.approx(np.cumprod(1 - betas)[steps], rel=1e-9)


def test_respacing_to_every_step_changes_nothing():
    betas = make_betas("linear", 100)
    assert respace_betas(betas, list(range(100))) == pytest.approx(betas, rel=1e-10)


@pytest.mark.parametrize("respacing", ["0", "-5", "2.5", "ten", "5,", "ddim", "ddim0"])
def test_a_malformed_respacing_is_refused_by_name(respacing):
    with pytest.raises(ValueError, match="^'.*wanted"):
        respaced_steps(respacing, 100)


def test_more_steps_than_there_are_is_refused_with_the_most_that_fit():
    with pytest.raises(ValueError, match="^600 .*diffusion_steps 500; choose at most 500"):
        respaced_steps("600", 500)


def test_more_steps_than_a_section_has_is_refused_with_the_section():
    with pytest.raises(ValueError, match="takes 60 of the 50 steps in section 2"):
        respaced_steps("10,60", 100)


def test_a_number_that_no_integer_stride_gives_is_refused():
    with pytest.raises(ValueError, match="^ddim30: no integer stride .*diffusion_steps 50"):
        respaced_steps("ddim30", 50)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="^quadratic: choose one of linear, cosine"):
        make_betas("quadratic", 100)


def test_so_few_linear_steps_that_a_beta_reaches_1_are_refused():
    with pytest.raises(ValueError, match="diffusion_steps 20 .*at least 21"):
        make_betas("linear", 20)
    assert make_betas("linear", 21)[-1] < 1
