"""The benchmark of operators tells each its kind, and counts what the kinds compute."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.operators import Counted, kind_of, main


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["aten::conv2d", "aten::convolution", "aten::mkldnn_convolution"], "convolutions, forward"),
        (["FrozenConv2dBackward", "aten::convolution_backward", "aten::copy_"], "convolutions, backward"),
        (["autograd::engine::evaluate_function: ConvolutionBackward0"], "convolutions, backward"),
        (["Norm", "aten::addcmul"], "normalisation, activation"),
        (["aten::linear", "aten::addmm"], "products of matrices"),
        (["RecomputedBackward", "aten::einsum", "aten::bmm"], "attention"),
        (["aten::mul"], "sums and scales"),
        (["aten::cat"], "copies, resampling"),
        (["aten::fill_"], "other"),
    ],
)
def test_an_operator_is_of_the_kind_of_the_outermost_that_it_is_a_part_of(names, kind):
    assert kind_of(names) == kind


def test_operations_are_counted_of_attention_too():
    x, weight = torch.rand(1, 4, 8, 8, requires_grad=True), torch.rand(6, 4, 3, 3)
    q = torch.rand(1, 2, 16, 4, requires_grad=True)
    with Counted() as counted:
        F.conv2d(x, weight, padding=1).sum().backward()
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    convolution, product = 2 * 6 * 4 * 9 * 64, 2 * 2 * 16 * 16 * 4
    assert counted.operations["convolutions, forward"] == counted.operations["convolutions, backward"] == convolution
    assert (
        counted.operations["attention"] == (2 + 5) * product
    )  # two products there, and five back, which does one again


@pytest.mark.slow
def test_the_time_of_a_call_is_shared_out(capsys):
    main(["--size", "16", "--channels", "32", "--runs", "1"])
    shares = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[4:]]
    assert shares[-1][0] == "all" and shares[-1][2] == "1.00"
    for column in (2, 6):
        assert sum(float(row[column]) for row in shares[:-1]) == pytest.approx(1, abs=0.04)
