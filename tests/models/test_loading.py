"""The door for weights: what comes in, bit for bit, and what is turned away, in one line."""

import collections
import functools
import http.server
import io
import os
import pickle
import resource
import struct
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ace_counterfactuals.models.loading import (
    WeightsError,
    describe,
    digest,
    load_into,
    load_weights,
    save_weights,
    state_dict,
    unfilled,
)
from tests.support import weight_files as files


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    return one == other


def written(folder, data: bytes, name="weights.bin"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("pack", [files.as_zip, files.as_legacy])
def test_torch_files_of_both_kinds_are_read_bit_for_bit(tmp_path, pack):
    assert equal(load_weights(written(tmp_path, pack(files.small_tree()))), files.small_tree())


@pytest.mark.parametrize("pack", [files.as_zip, files.as_legacy])
def test_a_parameter_and_an_ordered_dict_come_in_as_tensor_and_dict(tmp_path, pack):
    tree = collections.OrderedDict(w=nn.Parameter(torch.ones(2)))
    loaded = load_weights(written(tmp_path, pack(tree)))
    assert type(loaded) is dict and type(loaded["w"]) is torch.Tensor and not loaded["w"].requires_grad
    assert torch.equal(loaded["w"], torch.ones(2))


@pytest.mark.parametrize("pack", [files.as_zip, files.as_legacy])
def test_what_training_saves_beside_the_weights_comes_in_too(tmp_path, pack):
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    tree = {"o": optimizer.state_dict(), "s": scheduler.state_dict(), "seen": {1, 2}, "size": torch.Size([2])}
    loaded = load_weights(written(tmp_path, pack(tree)))
    assert (loaded["seen"], loaded["size"], loaded["s"]["milestones"]) == ({1, 2}, (2,), {3: 1, 5: 1})


def test_a_pickle_protocol_that_torch_cannot_read_as_data_is_said_so(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt", pickle_protocol=4)
    with pytest.raises(WeightsError, match="is refused by torch"):
        load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("pack", [files.as_zip, files.as_legacy])
def test_numpy_numbers_and_arrays_beside_the_weights_are_data_too(tmp_path, pack):
    tree = {"best": np.float64(0.5), "history": np.arange(6.0).reshape(2, 3), "w": torch.ones(1)}
    loaded = load_weights(written(tmp_path, pack(tree)))
    assert loaded["best"] == 0.5 and torch.equal(loaded["history"], torch.arange(6.0).double().view(2, 3))


def test_a_tar_of_torch_0_1_is_read_bit_for_bit(tmp_path):
    tensors = {"a.weight": torch.randn(2, 3, 1, 2), "a.bias": torch.randn(3)}
    assert equal(load_weights(written(tmp_path, files.as_tar(tensors))), tensors)


def test_safetensors_are_known_by_their_header_whatever_the_name(tmp_path):
    tensors = {"a.weight": torch.randn(2, 3).half(), "n": torch.tensor(3)}
    loaded = load_weights(written(tmp_path, safetensors.torch.save(tensors), "weights.pth"))
    assert equal(dict(sorted(loaded.items())), tensors)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "|u1"])
def test_python_2_arrays_are_read_bit_for_bit(tmp_path, protocol, dtype):
    arrays = {"w": (100 * np.random.default_rng(0).random((3, 4))).astype(dtype), "empty": np.zeros((0, 2), dtype)}
    loaded = load_weights(written(tmp_path, files.as_python2_pickle(arrays, protocol)))
    assert all(np.array_equal(loaded[key].numpy(), arrays[key]) for key in arrays)


def test_python_2_wrote_column_major_arrays_as_they_lay(tmp_path):
    arrays = {"w": np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))}
    assert np.array_equal(load_weights(written(tmp_path, files.as_python2_pickle(arrays)))["w"].numpy(), arrays["w"])


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_any_pickle_protocol_are_read(tmp_path, protocol):
    arrays = {"w": np.random.default_rng(0).random((3, 4), dtype=np.float32), "n": np.array(4)}
    loaded = load_weights(written(tmp_path, pickle.dumps(arrays, protocol)))
    assert all(np.array_equal(loaded[key].numpy(), arrays[key]) for key in arrays)


def test_what_is_saved_comes_back_unchanged(tmp_path):
    save_weights(tmp_path / "w.pt", files.small_tree())
    assert equal(load_weights(tmp_path / "w.pt"), files.small_tree())


def test_what_is_saved_as_safetensors_has_the_same_state_and_values(tmp_path):
    tree = files.small_tree()
    save_weights(tmp_path / "w.safetensors", tree)
    loaded = load_weights(tmp_path / "w.safetensors")
    state, wanted = state_dict(loaded), state_dict(tree)
    assert equal(dict(sorted(state.items())), dict(sorted(wanted.items())))
    assert (loaded["epoch"], loaded["arch"]) == (3, "toy")


def test_the_same_tree_makes_the_same_file(tmp_path):
    for name in ("one.pt", "two.pt"):
        save_weights(tmp_path / name, files.small_tree())
    assert digest(tmp_path / "one.pt") == digest(tmp_path / "two.pt")


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    save_weights(tmp_path / "w.pt", {"w": torch.ones(1)})
    with pytest.raises(TypeError):
        save_weights(tmp_path / "w.pt", {"w": (i for i in ())})
    assert [f.name for f in tmp_path.iterdir()] == ["w.pt"] and load_weights(tmp_path / "w.pt")


# What a state dict is made from


def test_nested_dicts_module_prefixes_and_half_precision_are_undone():
    tree = {"model_state_dict": {"module.a": {"module.w": torch.ones(1).half()}}, "optimizer": {"x": torch.ones(1)}}
    state = state_dict(tree)
    assert list(state) == ["a.w"] and state["a.w"].dtype == torch.float32


def test_a_tensor_with_and_without_module_is_refused():
    with pytest.raises(WeightsError, match="twice"):
        state_dict({"w": torch.ones(1), "module.module.w": torch.ones(1)})


def test_a_tree_that_refers_to_itself_many_times_over_is_refused_quickly():
    tree = {"w": torch.ones(1)}
    for _ in range(40):
        tree = {"left": tree, "right": tree}
    with pytest.raises(WeightsError, match="nested deeper"):
        state_dict(tree)
    tree = {"w": 1}
    for _ in range(6):
        tree = {f"part{i}": tree for i in range(1000)}
    with pytest.raises(WeightsError, match="nested deeper"):
        state_dict(tree)


def test_a_file_without_tensors_is_refused_by_name():
    with pytest.raises(WeightsError, match="F: holds no tensors"):
        state_dict({"epoch": 1}, name="F")


def test_a_state_that_does_not_fit_is_told_in_one_line():
    state = {"weight": torch.ones(2, 2), "extra": torch.ones(1)}
    with pytest.raises(WeightsError) as error:
        load_into(nn.Linear(3, 2), state, path="F", what="a linear layer")
    assert str(error.value).startswith("F: not a linear layer but an unknown network")
    for part in ("lacks 1 (bias)", "has beyond it 1 (extra)", "weight is (2, 2), wanted (2, 3)"):
        assert part in str(error.value)


def test_a_network_made_without_memory_gets_copies_of_the_weights():
    state = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    with unfilled():
        network = nn.Linear(3, 2)
    assert network.weight.is_meta
    load_into(network, state, path="F", what="a linear layer")
    assert equal(dict(network.state_dict()), state) and network.weight.data_ptr() != state["weight"].data_ptr()


def test_a_network_is_recognised(golden_weights):
    assert describe(state_dict(load_weights(golden_weights("unet_celeba.pt")))) == "a diffusion U-Net"


# What is turned away

PAGES = {
    "empty.pt": (b"", "is empty"),
    "page.pt": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "packed.tar.gz": (b"\x1f\x8b\x08" + bytes(50), "compressed archive"),
    "noise.pt": (b"hello, this is no network", "in no known format"),
    "cut.safetensors": (struct.pack("<Q", 40) + b'{"a": 1' + bytes(60), "damaged or cut short"),
}


@pytest.mark.parametrize("name", PAGES)
def test_each_wrong_file_is_named_with_what_it_is(tmp_path, name):
    data, said = PAGES[name]
    with pytest.raises(WeightsError, match=said) as error:
        load_weights(written(tmp_path, data, name))
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path):
    for read in (load_weights, digest):
        with pytest.raises(WeightsError, match="no such file"):
            read(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="is a directory"):
        load_weights(tmp_path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        load_weights(tmp_path / "pipe")


@pytest.mark.parametrize("pack", [files.as_zip, files.as_legacy, lambda tree: files.as_tar({"w": torch.ones(9)})])
def test_a_file_cut_anywhere_is_refused(tmp_path, pack):
    data = pack(files.small_tree())
    for length in range(1, len(data) - 1, max(1, len(data) // 40)):
        try:
            load_weights(written(tmp_path, data[:length]))
        except WeightsError:
            continue
        assert data[length:].strip(b"\0") == b""  # only a tar's padding may be lacking


@pytest.fixture()
def server(tmp_path):
    """Address of a web server of the files in tmp_path."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_weights_are_read_from_an_address_too(server, tmp_path):
    save_weights(tmp_path / "w.pt", files.small_tree())
    assert equal(load_weights(f"{server}/w.pt"), files.small_tree())
    assert digest(f"{server}/w.pt") == digest(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="cannot be opened: HTTPError: HTTP Error 404"):
        load_weights(f"{server}/other.pt")


def test_blobfile_opens_the_addresses_that_it_knows(monkeypatch):
    import blobfile

    remote = {"gs://bucket/w.pt": files.as_zip({"w": torch.ones(2)})}
    monkeypatch.setattr(blobfile, "BlobFile", lambda url, mode: io.BytesIO(remote[url]))
    assert torch.equal(load_weights("gs://bucket/w.pt")["w"], torch.ones(2))


def test_an_address_that_cannot_be_opened_is_one_line():
    with pytest.raises(WeightsError, match="cannot be opened|no such file"):
        load_weights("nowhere://bucket/weights.pt")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/ace-was-here",)


HOSTILE = {
    "zip": lambda: files.as_zip({"w": torch.ones(1), "x": Hostile()}),
    "legacy": lambda: files.as_legacy({"w": torch.ones(1), "x": Hostile()}),
    "pickle": lambda: pickle.dumps({"x": Hostile()}, 2),
    "new pickle": lambda: pickle.dumps({"x": Hostile()}, 5),
    "python 2": lambda: b"(dS'x'\ncposix\nsystem\n(S'true'\ntRs.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_asks_for_code_is_refused_with_its_name(tmp_path, kind):
    with pytest.raises(WeightsError, match=r"asks for posix\.system"):
        load_weights(written(tmp_path, HOSTILE[kind]()))


def test_an_object_of_a_class_is_refused(tmp_path):
    for operation in (b"iposix\nsystem\n", b"cbuiltins\nset\n)\x81", b"(cbuiltins\nset\no"):
        with pytest.raises(WeightsError, match="asks for"):
            load_weights(written(tmp_path, b"(dS'x'\n(S'true'\n" + operation + b"s."))


def test_a_function_left_in_the_tree_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="asks for"):
        load_weights(written(tmp_path, b"\x80\x02}X\x01\0\0\0wc_codecs\nencode\ns."))


def pickled_in_zip(pickled: bytes, **extra) -> bytes:
    return files.with_pickle(files.as_zip({"w": torch.ones(4)}), pickled, **extra)


def tensor_op(numel: int, offset: int, size: int, stride: int, key="0") -> bytes:
    """{'w': a tensor of this shape in a storage of this declared length}."""
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    storage = b"(" + files.text("storage") + b"ctorch\nFloatStorage\n" + files.text(key) + files.text("cpu")
    shape = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85\x89}"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(numel) + b"tQ" + shape + b"tR"
    return b"\x80\x02}" + files.text("w") + made + b"s."


def test_a_tensor_written_by_hand_within_its_storage_is_read(tmp_path):
    data = pickled_in_zip(tensor_op(4, 1, 3, 1))
    assert torch.equal(load_weights(written(tmp_path, data))["w"], torch.ones(3))


ARRAY = (
    b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02f4\x85R\x89%stbs."
)
COPIES = b"\x80\x02}U\x01w]" + files.text("a" * 10**5) + b"q\x010(" + b"c_codecs\nencode\nh\x01\x85R" * 10**4 + b"es."
LAUGHS = b"\x80\x04]\x94" + b"N" + b"q\x00(h\x00h\x00l" * 40 + b"\x8c\x01a\x93."
LIES = {
    "a tensor larger than its storage": (tensor_op(4, 0, 10**9, 1), "not resizable"),
    "a tensor that repeats its storage": (tensor_op(4, 0, 10**9, 0), "overlap"),
    "a tensor that starts outside": (tensor_op(4, 10**12, 1, 1), "not resizable"),
    "a negative size": (tensor_op(4, 0, -1, 1), "damaged"),
    "a storage longer than the file": (tensor_op(10**12, 0, 10**12, 1), "shorter than it says"),
    "a storage that is elsewhere": (tensor_op(4, 0, 4, 1, key="../../etc/passwd"), "missing"),
    "a huge bytearray": (b"\x80\x02}X\x01\0\0\0wc__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85Rs.", "bytearray"),
    "a codec that inflates": (b"\x80\x02}X\x01\0\0\0wc_codecs\nencode\nU\x01aU\x04zlib\x86Rs.", "a codec"),
    "bytes made of a number": (ARRAY % b"J\xff\xff\xff\x7f", "an array without its bytes"),
    "one text copied many times": (COPIES, "makes many times more"),
    "a name that is a tree": (LAUGHS, "damaged"),
    "a memo of 64 GiB": (b"\x80\x02}r\xff\xff\xff\xffX\x01\0\0\0wK\x01s.", None),
    "a string of an exabyte": (b"\x80\x04}\x8e" + b"\xff" * 7 + b"\x0fabc.", "cut short"),
    "a key that hashes for ever": (b"\x80\x02}(K\x01" + b"\x85" * 100_000 + b"K\x02u.", "tuple as a key"),
    "nesting without end": (b"\x80\x02}X\x01\0\0\0w" + b"]" * 5000 + b"a" * 4999 + b"s.", "nested deeper"),
    "a list within itself": (b"\x80\x02}X\x01\0\0\0w]q\x01h\x01as.", "nested deeper"),
    "steps without end": (b"\x80\x02" + b"N0" * 600_000 + b"}.", "more steps"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_declares_more_than_it_has_costs_nothing(tmp_path, lie):
    pickled, said = LIES[lie]
    path = written(tmp_path, pickled_in_zip(pickled))
    if said is None:
        assert load_weights(path) == {"w": 1}
    else:
        with pytest.raises(WeightsError, match=said):
            load_weights(path)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (10**9, 1), (10**9, 0)])
def test_a_tensor_larger_than_its_storage_is_refused_in_a_legacy_file_too(tmp_path, size, stride):
    tree = tensor_op(4, 0, size, stride).replace(b"tQ", b"NtQ", 1)
    preamble = [pickle.dumps(value, 2) for value in (files.MAGIC, 1001, {})]
    storage = struct.pack("<q4f", 4, 1, 2, 3, 4)
    path = written(tmp_path, b"".join([*preamble, tree, pickle.dumps(["0"], 2), storage]))
    if size == 3:
        assert load_weights(path)["w"].tolist() == [1, 2, 3]
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(WeightsError):
            load_weights(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # 128 MiB, where it says 4 GB


def test_a_tensor_of_a_tar_is_not_taken_apart(tmp_path):
    data = files.as_tar({"w": torch.ones(1, 10**5)}, made=b"ccollections\nOrderedDict\n%sQ\x85R")
    with pytest.raises(WeightsError, match="not iterable"):  # a view of one number could be of any size
        load_weights(written(tmp_path, data))


def test_tensors_that_share_a_storage_cannot_multiply_a_file(tmp_path):
    tree = {f"w{i}": tensor for i, tensor in enumerate(torch.ones(2**18).expand(40, -1))}
    with pytest.raises(WeightsError, match="overlap"):
        load_weights(written(tmp_path, files.as_zip(tree)))


def test_a_zip_that_inflates_is_refused_before_it_does(tmp_path):
    path = written(tmp_path, files.as_zip({"w": torch.ones(4)}))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(10**7))
    with pytest.raises(WeightsError, match="compressed part"):
        load_weights(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "archive/../../x", "C:/x", "\\\\server\\x"])
def test_a_zip_with_a_path_that_leads_out_is_refused(tmp_path, name):
    data = pickled_in_zip(tensor_op(4, 0, 4, 1), **{name: b"x"})
    with pytest.raises(WeightsError, match="outside the folder"):
        load_weights(written(tmp_path, data))


@pytest.mark.parametrize("disguise", [lambda data: data + b"PK", lambda data: data[:4] + data])
def test_a_zip_that_two_readers_could_read_differently_is_refused(tmp_path, disguise):
    with pytest.raises(WeightsError):
        load_weights(written(tmp_path, disguise(files.as_zip({"w": torch.ones(4)}))))


def test_another_zip_and_another_tar_are_named_with_their_contents(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("checkpoint.pt", b"x")
    with tarfile.open(tmp_path / "a.tar", "w:") as archive:
        archive.addfile(tarfile.TarInfo("checkpoint.tar"), io.BytesIO())
    with pytest.raises(WeightsError, match=r"zip archive of checkpoint\.pt"):
        load_weights(tmp_path / "a.zip")
    with pytest.raises(WeightsError, match=r"tar archive of checkpoint\.tar"):
        load_weights(tmp_path / "a.tar")


def test_a_torchscript_program_is_refused_as_such(tmp_path):
    data = pickled_in_zip(tensor_op(4, 0, 4, 1), **{"archive/constants.pkl": b"\x80\x02)."})
    with pytest.raises(WeightsError, match="TorchScript"):
        load_weights(written(tmp_path, data))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64])
def test_weights_that_are_no_floats_are_refused(dtype):
    with pytest.raises(WeightsError, match="weight is torch"):
        load_into(nn.Linear(3, 2), {"weight": torch.ones(2, 3, dtype=dtype), "bias": torch.ones(2)}, path="F", what="x")
