"""What an address names is fetched once, to a file, within a limit."""

import functools
import http.server
import io
import threading

import pytest

from ace_counterfactuals.models import fetching
from ace_counterfactuals.models.loading import WeightsError, digest, load_weights
from tests.support import weight_files as files

ASKED: list[str] = []


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        ASKED.append(self.path)


@pytest.fixture
def server(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=tmp_path)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
    ASKED.clear()


def test_an_address_of_a_stranger_is_fetched_once_and_its_digest_is_of_these_bytes(server, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(files.as_zip(files.small_tree()))
    known = digest(path)
    assert load_weights(f"{server}/w.pt").keys() == files.small_tree().keys()
    path.write_bytes(b"another file by now")
    assert digest(f"{server}/w.pt") == known
    assert ASKED == ["/w.pt"]


def test_an_answer_that_is_too_large_is_refused_by_the_limit_and_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LIMIT", 2**21)
    (tmp_path / "w.pt").write_bytes(bytes(2**22))
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"w\.pt: cannot be opened: is larger than 0\.00195312 GiB, the limit"):
            load_weights(f"{server}/w.pt")
    assert ASKED == ["/w.pt"] * 2


def test_an_answer_without_end_is_read_to_the_limit_alone(monkeypatch):
    class Endless(io.RawIOBase):
        count = 0

        def read(self, size=-1):
            Endless.count += size
            return bytes(size)

    monkeypatch.setattr(fetching, "LIMIT", 2**22)
    monkeypatch.setattr(fetching, "_remote", lambda url: Endless())
    with pytest.raises(WeightsError, match="GiB, the limit"):
        load_weights("https://somewhere/w.pt")
    assert Endless.count <= 2**22 + 2 * fetching.BLOCK
