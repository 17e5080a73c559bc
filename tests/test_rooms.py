"""Which room may import which: arrows go one way, only core/cli prints, and nobody imports a program."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BELOW = {
    "core.base": "",
    "guided_diffusion": "core.base",
    "models": "core.base guided_diffusion",
    "core.method": "core.base guided_diffusion models",
    "core.data": "core.base models",
    "core.runs": "core.base core.data core.method guided_diffusion models",
    "core.evaluation": "core.base core.data core.method core.runs guided_diffusion models",
    "core.training": "core.base core.data core.evaluation core.method guided_diffusion models",
    "core.api": "core.base core.data core.method core.runs core.evaluation guided_diffusion models",
    "core.postprocessing": "core.base core.data core.method core.runs core.evaluation guided_diffusion models",
    "core.preflight": "core.base core.data core.method core.runs core.evaluation guided_diffusion models",
    "core.tuning": "core.base core.data core.method core.runs core.evaluation core.preflight guided_diffusion models",
    "core.report": "core.base core.data core.runs core.evaluation",
}
BELOW["core.app"] = BELOW["core.report"] + " core.method core.report guided_diffusion models"
BELOW["core.cli"] = " ".join(BELOW)
"""What each room may import"""

FILES = [path for top in ("core", "models", "guided_diffusion") for path in (ROOT / top).rglob("*.py")]
PROGRAMS = {path.stem for path in ROOT.glob("*.py")}


def room_of(module: str) -> str:
    """'core.runs' of 'core.runs.run', 'models' of 'models.loading'."""
    names = module.split(".")
    return ".".join(names[: 2 if names[0] == "core" else 1])


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, here and there also a name of theirs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_room_is_in_the_table():
    rooms = {room_of(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in FILES}
    assert rooms - {"core.__init__"} == set(BELOW)


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_what_is_below_it_alone(room):
    house = "ace_counterfactuals."
    wrong = []
    for path in (ROOT / room.replace(".", "/")).rglob("*.py"):
        rooms = {room_of(module.removeprefix(house)) for module in imported(path) if module.startswith(house)}
        wrong += [f"{path.relative_to(ROOT)} imports {other}" for other in rooms - {room, *BELOW[room].split()}]
    assert wrong == []


def test_the_arrows_have_no_circle():
    order = list(BELOW)
    assert all(order.index(below) < order.index(room) for room in BELOW for below in BELOW[room].split())


def test_only_the_command_line_prints():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [call for call in calls if not call.startswith("core/cli/")] == []


OF_PATHS = {"mkdir", "unlink", "touch", "rmdir", "write_text", "write_bytes", "symlink_to", "hardlink_to"}
OF_OS = {"replace", "rename", "remove", "unlink", "link", "symlink", "mkdir", "makedirs", "rmdir", "truncate"}
ELSEWHERE = {
    "models/loading.py: mkdir",  # of torch.hub's cache
    "core/preflight/model.py: write_text",  # to /proc, of the most that the process held
}


def changes_files(call: ast.Call) -> str:
    """The name of a function that writes, moves or deletes without core/base, '' of another."""
    of = getattr(getattr(call.func, "value", None), "id", "")
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [value.value for value in call.args[1:2] if isinstance(value, ast.Constant)]
    opens = name == "open" and not of and set("wax+") & set("".join(map(str, modes)))
    changes = (name in OF_PATHS and of != "atomic") or (of == "os" and name in OF_OS) or of == "shutil"
    return name if opens or changes else ""


def test_files_are_written_moved_and_deleted_by_core_base_alone_so_through_no_link_of_a_stranger():
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (name := changes_files(node))
    }
    assert {entry for entry in found if not entry.startswith("core/base/")} == ELSEWHERE


def test_nobody_imports_a_program():
    users = [path for top in ("benchmarks", "scripts") for path in (ROOT / top).rglob("*.py")]
    wrong = {path.name: PROGRAMS & {module.split(".")[0] for module in imported(path)} for path in FILES + users}
    assert {name: programs for name, programs in wrong.items() if programs} == {}
