"""download-weights.sh, against a server on this machine that can break off, forget ranges, or serve something else."""

import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
import yaml

from ace_counterfactuals.models.loading import digest
from tests.support.paths import ROOT
from tests.support.unet_cases import TOY, toy_unet

SCRIPTS = ROOT / "scripts"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("download_weights", SCRIPTS / "download_weights.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Server(ThreadingHTTPServer):
    """files: path -> bytes.  cuts: how many bytes each of the next answers sends before it breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        most = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + most])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def unet() -> bytes:
    stream = io.BytesIO()
    torch.save(toy_unet().state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def toy(server, tmp_path) -> dict:
    """An entry of the table: the U-Net of ``unet``."""
    settings = {name: value for name, value in TOY.items() if name not in ("dropout", "use_checkpoint")}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings | {"diffusion_steps": 100}))
    entry = {"file": "toy.pt", "page": "http://page", "flag": "main.py --model_path", "url": server.url("toy.pt")}
    return entry | {"network": "unet", "preset": str(tmp_path / "toy.yaml")}


@pytest.fixture
def fetch(program, toy, tmp_path, capsys):
    """Function: names, and fields of the entry 'toy' -> exit code and what was printed. Files go to tmp_path/w."""

    def call(*names, table=None, **fields):
        entries = table or {"toy": toy | fields}
        (tmp_path / "table.yaml").write_text(yaml.safe_dump(entries))
        argv = [*(names or ("toy",)), "--to", str(tmp_path / "w"), "--table", str(tmp_path / "table.yaml")]
        code = program.main(argv)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def left(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "w").iterdir())


def test_a_download_gets_its_name_and_is_said_to_be_what_it_is(fetch, server, unet, tmp_path):
    server.files["toy.pt"] = unet
    code, said = fetch()
    assert code == 0 and left(tmp_path) == ["toy.pt"]
    assert (tmp_path / "w/toy.pt").read_bytes() == unet
    assert "loads as a diffusion U-Net" in said and "give it as main.py --model_path" in said
    assert digest(tmp_path / "w/toy.pt") in said


def test_a_broken_download_is_continued_where_it_broke(fetch, server, unet, tmp_path):
    server.files["toy.pt"] = unet
    (tmp_path / "w").mkdir()
    (tmp_path / "w/toy.pt.part").write_bytes(unet[:1000])
    assert fetch()[0] == 0
    assert server.asked == [("/toy.pt", "bytes=1000-")]
    assert (tmp_path / "w/toy.pt").read_bytes() == unet and left(tmp_path) == ["toy.pt"]


def test_what_came_of_a_download_that_gets_no_further_is_kept_for_the_next_command(fetch, server, unet, tmp_path):
    server.files["toy.pt"], server.cuts = unet, [5000]
    code, said = fetch()
    assert code == 2 and "5,000 bytes are kept, the same command continues" in said
    assert left(tmp_path) == ["toy.pt.part"]
    assert fetch()[0] == 0 and left(tmp_path) == ["toy.pt"]


def test_a_download_that_was_stopped_just_before_it_got_its_name_is_not_fetched_again(fetch, server, unet, tmp_path):
    server.files["toy.pt"] = unet
    (tmp_path / "w").mkdir()
    (tmp_path / "w/toy.pt.part").write_bytes(unet)
    assert fetch()[0] == 0 and left(tmp_path) == ["toy.pt"]


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(fetch, server, unet, tmp_path):
    server.files["toy.pt"], server.ranges = unet, False
    (tmp_path / "w").mkdir()
    (tmp_path / "w/toy.pt.part").write_bytes(unet[:1000])
    assert fetch()[0] == 0
    assert (tmp_path / "w/toy.pt").read_bytes() == unet


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda unet: unet[: len(unet) // 2], "damaged or cut short"),
        (lambda unet: b"<!DOCTYPE html><title>Are you a robot?</title>", "is a web page, not weights"),
        (lambda unet: b"", "is empty"),
    ],
)
def test_a_file_that_is_no_weights_leaves_nothing(change, said, fetch, server, unet, tmp_path):
    server.files["toy.pt"] = change(unet)
    code, printed = fetch()
    assert code == 2 and said in printed and "removed" in printed
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sha256": "0" * 64}, "wanted 0000"),
        ({"network": "classifier", "dataset": "CelebA"}, "is a diffusion U-Net, not the DenseNet-121"),
        ({"network": "oracle", "dataset": "CelebA"}, "is a diffusion U-Net, not an attribute oracle"),
        ({"preset": "celeba"}, "num_channels 32"),
    ],
)
def test_weights_other_than_the_table_says_leave_nothing(fields, said, fetch, server, unet, tmp_path):
    server.files["toy.pt"] = unet
    code, printed = fetch(**fields)
    assert code == 2 and said in printed and "removed" in printed
    assert left(tmp_path) == []


def test_the_beginning_of_a_digest_is_enough(fetch, server, unet, tmp_path):
    server.files["toy.pt"] = unet
    (tmp_path / "same").write_bytes(unet)
    assert fetch(sha256=digest(tmp_path / "same")[:8])[0] == 0


def test_an_address_that_is_gone_is_answered_with_the_page(fetch, tmp_path):
    code, said = fetch()
    assert code == 2 and "HTTP Error 404" in said and "Its page is http://page; see also --from" in said
    assert left(tmp_path) == []


def test_an_address_without_a_server_is_an_error_in_one_line(fetch, tmp_path):
    code, said = fetch(url="http://127.0.0.1:9/toy.pt")
    assert code == 2 and "could not be fetched" in said and "Traceback" not in said


def test_a_file_that_is_there_is_verified_and_not_fetched(fetch, server, unet, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w/toy.pt").write_bytes(unet)
    code, said = fetch()
    assert code == 0 and "is there; loads as a diffusion U-Net" in said and server.asked == []


def test_a_damaged_file_that_is_there_is_refused_and_left_alone(fetch, server, unet, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w/toy.pt").write_bytes(unet[:5000])
    code, said = fetch()
    assert code == 2 and "damaged or cut short" in said and left(tmp_path) == ["toy.pt"]


def test_what_must_be_fetched_by_hand_says_why_and_how(fetch, tmp_path):
    code, said = fetch(url="", why="a person has to agree")
    assert code == 2
    assert f"by hand: a person has to agree. Open http://page and save the file as {tmp_path / 'w/toy.pt'}" in said


def test_an_address_copied_from_the_page_can_be_given(fetch, server, unet, tmp_path):
    server.files["elsewhere.bin"] = unet
    assert fetch("toy", "--from", server.url("elsewhere.bin"), url="", sha256="0")[0] == 0
    assert left(tmp_path) == ["toy.pt"]


def test_an_unknown_name_is_refused_before_anything_is_fetched(fetch, server, unet):
    server.files["toy.pt"] = unet
    with pytest.raises(ValueError, match="^toi: no such weights; did you mean toy\\?$"):
        fetch("toy", "toi")
    assert server.asked == []


def test_one_failure_does_not_keep_the_others_from_being_fetched(fetch, server, toy, unet, tmp_path):
    server.files["good.pt"] = unet
    table = {name: toy | {"file": f"{name}.pt", "url": server.url(f"{name}.pt")} for name in ("bad", "good")}
    assert fetch("all", table=table)[0] == 2
    assert left(tmp_path) == ["good.pt"]


def make_archive(members: dict[str, bytes | str]) -> bytes:
    """A .tar.gz of files, and of links where the content is a str."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            if isinstance(content, str):
                item.type, item.linkname = tarfile.SYMTYPE, content
            else:
                item.size = len(content)
            tar.addfile(item, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


@pytest.fixture
def fetch_member(fetch, server, toy):
    """Function: members of the archive behind the entries 'one' and 'two' -> what ``fetch`` returns."""

    def call(members, *names):
        server.files["all.tar.gz"] = members if isinstance(members, bytes) else make_archive(members)
        common = toy | {"url": server.url("all.tar.gz")}
        table = {name: common | {"file": f"{name}.pt", "members": [f"{name}/weights.pt"]} for name in ("one", "two")}
        return fetch(*names, table=table)

    return call


def test_an_archive_is_fetched_once_and_only_its_named_members_are_unpacked(fetch_member, server, unet, tmp_path):
    hostile = {"../outside": b"x", "/tmp/outside": b"x", "two": "/etc/passwd", "readme.txt": b"hello"}
    code, said = fetch_member(hostile | {"top/one/weights.pt": unet, "two/weights.pt": unet}, "one", "two")
    assert code == 0, said
    assert left(tmp_path) == ["all.tar.gz", "one.pt", "two.pt"] and len(server.asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.yaml", "toy.yaml", "w"]


def test_a_link_in_an_archive_is_not_followed(fetch_member, tmp_path):
    code, said = fetch_member({"one/weights.pt": "/etc/passwd"}, "one")
    assert code == 2 and "wanted one one/weights.pt" in said and left(tmp_path) == ["all.tar.gz"]


def test_an_archive_without_the_member_says_what_it_holds(fetch_member):
    code, said = fetch_member({"three/weights.pt": b"x"}, "one")
    assert code == 2 and "holds three/weights.pt; wanted one one/weights.pt" in said


@pytest.mark.parametrize("damage", [lambda archive: archive[: len(archive) // 2], lambda archive: b"<html>no</html>"])
def test_a_damaged_archive_leaves_nothing(damage, fetch_member, unet, tmp_path):
    code, said = fetch_member(damage(make_archive({"one/weights.pt": unet})), "one")
    assert code == 2 and "is no whole archive" in said and "removed" in said
    assert left(tmp_path) == []


def test_without_a_name_the_table_is_printed(program, capsys):
    assert program.main([]) == 0
    table = capsys.readouterr().out
    assert "by hand: https://huggingface.co/guillaumejs2403/DiME" in table
    assert "/jul-2021/256x256_diffusion_uncond.pt" in table


def test_the_table_says_why_where_it_has_no_address(program):
    table = program.read_table(program.TABLE)
    assert len(table) == 13
    for entry in table.values():
        assert entry.url or entry.why, entry.name
        assert (entry.network == "unet") == bool(entry.preset), entry.name


def test_the_scripts_of_the_data_sets_look_for_the_files_that_the_table_names(program):
    table = program.read_table(program.TABLE)
    for script, prefix in (
        ("celeba", "celeba"), ("celebahq", "celebahq"), ("bdd100k", "bdd"), ("bddoia", "bdd"), ("imagenet", "imagenet"),
    ):  # fmt: skip
        text = (SCRIPTS / f"{script}.sh").read_text()
        assert f"model_names=({table[f'{prefix}-diffusion'].file} " in text
        assert f"classifier_names=({table[f'{prefix}-classifier'].file} " in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["vggface2"], "to is not given"),
        (["vggface2", "simsiam", "--to", "w", "--from", "http://x"], "give one NAME"),
        (["--tu", "w"], "did you mean --to"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(argv, said, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        program.main(argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        ("dive.pth", "classifier", "CelebA"), ("steex_hq.tar", "classifier", "CelebAHQ"),
        ("steex_bdd.tar", "classifier", "BDD100k"), ("oracle_celeba.pth", "oracle", "CelebA"),
        ("oracle_hq.tar", "oracle", "CelebAHQ"), ("resnet50_ft_weight.pkl", "vggface2", ""),
    ],
    ids=lambda file: file[0],
)  # fmt: skip
def test_each_kind_of_network_is_verified_by_its_own_loader(file, fetch, server, golden_weights, tmp_path):
    name, network, dataset = file
    server.files[name] = golden_weights(name).read_bytes()
    code, said = fetch(file=name, url=server.url(name), network=network, dataset=dataset)
    assert code == 0 and "loads as" in said, said


@pytest.mark.slow
def test_the_shell_script_fetches_from_any_folder(server, toy, unet, tmp_path):
    server.files["toy.pt"] = unet
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({"toy": toy}))
    command = ["bash", str(SCRIPTS / "download-weights.sh"), "toy", "--to", "w", "--table", "table.yaml"]
    environment = os.environ | {"PYTHON": sys.executable}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and left(tmp_path) == ["toy.pt"], result.stderr
