"""Networks are compiled where there is a compiler, and go on as they were where there is none."""

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.models.compiled import compile_calls
from tests.support.toys import ToyDenoiser, Workshop, toy_unet, tree

MISSING = "no working C++ compiler found in ('g++', 'clang')"


def never(plain, **options):
    """Fails when it is first called, as where a compiler is missing."""

    def call(*inputs):
        raise TorchDynamoException(MISSING)

    return call


def nowhere(plain, **options):
    raise RuntimeError("torch.compile is not supported on Python 3.99+")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What a run leaves without a compiler."""
    shop = Workshop(tmp_path_factory.mktemp("plain"))
    shop.run(num_samples=1)
    return shop, tree(shop.output)


@pytest.mark.parametrize("compile_", [never, nowhere])
def test_without_a_compiler_a_run_says_so_and_goes_on_as_it_would_have(plain, monkeypatch, capsys, compile_):
    shop, expected = plain
    monkeypatch.setattr(torch, "compile", compile_)
    shop.run(num_samples=1, compile=True, overwrite=True)
    printed = capsys.readouterr().err
    for network in ("the classifier", "the diffusion model"):
        assert printed.count(f"note: compile True: {network} cannot be compiled here") == 1
    assert tree(shop.output) == expected


def test_what_is_compiled_is_called(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda plain: lambda *inputs: seen.append(1) or plain(*inputs))
    network = ToyDenoiser()
    compile_calls(network, "it")
    network(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    assert seen == [1]


def test_where_the_same_bytes_are_wanted_nothing_is_compiled(plain):
    with pytest.raises(FlagError, match="compile True"):
        plain[0].run(compile=True, cudnn_deterministic=True, exp_name="other")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_unet_is_one_graph_and_gives_the_same_gradient_up_to_rounding(monkeypatch, tmp_path, caplog):
    """Other orders of sums of some hundred terms of size 1.  A minute of one core."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    counters.clear()
    network, x, t = toy_unet(), torch.rand(2, 3, 8, 8, requires_grad=True), torch.tensor([3, 40])

    def found():
        output = network(x, t)
        return output.detach(), torch.autograd.grad(output.square().sum(), x)[0]

    expected = found()
    compile_calls(network, "it")
    with caplog.at_level("INFO"):
        for got, wanted in zip(found(), expected, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert "cannot be compiled" not in caplog.text and any(tmp_path.rglob("*.so"))
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1
