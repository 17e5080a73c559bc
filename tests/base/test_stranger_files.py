"""Small files of a stranger are refused in one line that begins with their path, at once and without memory."""

import os

import pytest

from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.reading import open_regular, read_bytes, read_json, read_text, read_yaml
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.runs.config import MainConfig

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
YAML = {
    "aliases that explode": ALIASES,
    "an anchor": "flags: &a {}\n",
    "lists nested deep": "[" * 100_000,
    "blocks nested deep": "\n".join(" " * i + "- " for i in range(500)),
    "a number that overflows": f"a: {':'.join(['1'] * 400)}.5\n",
    "a date that there is not": "a: 2020-99-99\n",
    "a list as a name": "? [a]\n: b\n",
    "a python object": "a: !!python/object/apply:os.system [true]\n",
    "a tag that does not fit": "a: !!timestamp x\n",
    "two documents": "a: 1\n---\nb: 2\n",
}


def refusal(read, *given) -> str:
    with pytest.raises(ValueError) as refused:
        read(*given)
    assert len(str(refused.value)) < 400
    return str(refused.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def test_a_pipe_of_a_stranger_is_refused_instead_of_waited_for(path):
    os.mkfifo(path)
    for read in (open_regular, read_bytes, read_text, read_json, read_yaml):
        assert refusal(read, path) == f"{path}: is not a regular file"


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/tty", "/"])
def test_a_link_of_a_stranger_to_a_device_or_folder_is_refused(path, place):
    path.symlink_to(place)
    with pytest.raises((ValueError, OSError)) as refused:
        read_bytes(path)
    assert str(path) in str(refused.value)


def test_a_link_to_a_file_is_read(path):
    path.with_name("other").write_text("{}")
    path.symlink_to("other")
    assert read_json(path) == {}


def test_a_file_of_a_stranger_that_is_too_large_is_refused_unread(path):
    path.touch()
    os.truncate(path, 2**40)
    assert "is larger than 1048576 bytes" in refusal(read_json, path)


def test_bytes_that_are_no_text_are_told_by_their_place(path):
    path.write_bytes(b"a: \xff\n")
    assert refusal(read_yaml, path) == f"{path}: is not text in UTF-8 (byte 4)"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "{", '"\\ud8', "9" * 5000, "\0"])
def test_json_of_a_stranger_is_refused_by_its_path(path, text):
    path.write_text(text)
    assert refusal(read_json, path).startswith(f"{path}: is n")


@pytest.mark.parametrize("name", YAML)
def test_yaml_of_a_stranger_is_refused_by_its_path(path, name):
    path.write_text(YAML[name])
    assert refusal(read_yaml, path).startswith(f"{path}: is not YAML as it is read here: ")


@pytest.mark.parametrize("text", [ALIASES, "[" * 100_000, "a: \xff"])
def test_a_preset_of_a_stranger_is_refused_by_its_path(path, text):
    preset = path.with_suffix(".yaml")
    preset.write_bytes(text.encode("latin-1"))
    with pytest.raises(FlagError, match=f"{preset}: cannot be read"):
        read_preset(MainConfig, str(preset))


def test_a_pipe_as_a_preset_is_refused(path):
    os.mkfifo(preset := path.with_suffix(".yaml"))
    with pytest.raises(FlagError, match="is not a regular file"):
        read_preset(MainConfig, str(preset))
