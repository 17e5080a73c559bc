"""Dockerfile: its default command is the app, bound to every address inside, which starts with credentials alone."""

import json
import os
import re
import shutil
import subprocess

import pytest

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import ace
from ace_counterfactuals.core.cli.parsing import parse
from tests.support.paths import ROOT

TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
KNOWN = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instruction(name: str) -> str:
    """Of the last with this name."""
    return [rest for word, rest in LINES if word == name][-1]


def test_every_line_is_an_instruction_and_every_argument_is_declared_before_it_is_used():
    declared = set()
    for name, rest in LINES:
        assert name in KNOWN
        if name == "ARG":
            declared.add(rest.partition("=")[0])
        assert set(re.findall(r"\$\{(\w+)\}", rest)) <= declared


def test_the_base_is_chosen_by_an_argument_for_cpu_and_cuda():
    assert ["ARG", "BASE=ubuntu:24.04"] in LINES and ["FROM", "${BASE}"] in LINES
    assert re.search(r"--build-arg BASE=nvidia/cuda\S+ --build-arg TORCH=cu\d+", TEXT)


def test_nobody_is_root_inside_and_no_credentials_are_part_of_it():
    assert instruction("USER") != "root" and "ACE_APP_AUTH" not in TEXT


def test_its_command_is_one_that_the_app_takes_and_refuses_without_credentials(monkeypatch, capsys):
    pytest.importorskip("starlette")
    monkeypatch.delenv("ACE_APP_AUTH", raising=False)
    program, (command, *words) = json.loads(instruction("ENTRYPOINT")), json.loads(instruction("CMD"))
    config = parse(AppConfig, "", words)
    assert (program, command, config.serving.host) == (["ace"], "app", "0.0.0.0")
    assert instruction("EXPOSE") == str(config.serving.port)
    with pytest.raises(FlagError, match="ACE_APP_AUTH"):
        ace.main([command, *words])


@pytest.mark.slow
def test_it_builds_where_docker_answers():
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("no docker daemon answers")
    quiet = os.environ | {"DOCKER_BUILDKIT": "1"}
    subprocess.run([docker, "build", "--quiet", "--tag", "ace-test", ROOT], check=True, env=quiet)
    without = subprocess.run([docker, "run", "--rm", "ace-test"], capture_output=True, text=True)
    assert without.returncode == 2 and "ACE_APP_AUTH" in without.stderr
