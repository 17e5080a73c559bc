"""The server's life: networks loaded, warmed up, pages answered, and everything temporary removed at its end."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import uvicorn

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.app.guarding import Guard, credentials
from ace_counterfactuals.core.app.line import Line
from ace_counterfactuals.core.app.pictures import Uploads
from ace_counterfactuals.core.app.results import Result
from ace_counterfactuals.core.app.server import Rooms, make_app
from ace_counterfactuals.core.app.studio import open_studio
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import spec_of


def serve(config: AppConfig, ready: Callable[[str], None]) -> int:
    """Answer until a signal comes.  ready: called with the address.  Raises ValueError for what cannot be served."""
    serving = config.serving
    auth = credentials(serving)
    listener = listen(serving.host, serving.port)
    studio = open_studio(config)
    with TemporaryDirectory(prefix="ace-app-uploads-") as folder:
        line = Line(studio.explain, Result.drop, studio.warm_up)
        try:
            uploads = Uploads(Path(folder), spec_of(config.data.dataset).upright, config.data.background)
            rooms = Rooms(studio, uploads, line, Path(serving.output_path), tuple(map(Path, serving.browse)))
            host = f"[{serving.host}]" if ":" in serving.host else serving.host
            ready(f"http://{host}:{listener.getsockname()[1]}/")
            guarded = Guard(make_app(rooms), auth)
            settings = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=3, server_header=False)
            with suppress(KeyboardInterrupt):  # by which a server usually ends
                Server(settings, line).run([listener])
        finally:
            line.close()
            for name in [*line.jobs]:
                line.drop(name)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Raises FlagError where somebody else does."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=kind)
    except OSError as error:
        raise FlagError("port", f"{port}: cannot be listened at on {host} ({error.strerror}); choose another") from None


class Server(uvicorn.Server):
    """Ends what is computed as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, line: Line):
        super().__init__(config)
        self.line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        threading.Thread(target=self.line.close).start()
        super().handle_exit(sig, frame)
