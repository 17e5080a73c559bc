"""The app over toy networks, and its events."""

import base64
import io
import json
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from starlette.testclient import TestClient

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.app.guarding import Guard
from ace_counterfactuals.core.app.line import Line
from ace_counterfactuals.core.app.pictures import Uploads
from ace_counterfactuals.core.app.results import Result
from ace_counterfactuals.core.app.server import Rooms, make_app
from ace_counterfactuals.core.app.studio import Studio, open_studio
from ace_counterfactuals.core.cli.parsing import parse
from tests.support.toys import Workshop

HERE = "http://127.0.0.1"


def toy_studio(shop: Workshop, **changes) -> Studio:
    return open_studio(parse(AppConfig, "", shop.arguments(**changes)))


@contextmanager
def served(studio: Studio, folder: Path, *, auth: str = ""):
    """A client of the app; its results are saved to folder / "kept"."""
    (folder / "uploads").mkdir()
    line = Line(studio.explain, Result.drop)
    rooms = Rooms(studio, Uploads(folder / "uploads"), line, folder / "kept", (folder / "browsed",))
    try:
        with TestClient(Guard(make_app(rooms), auth), base_url=HERE) as client:
            client.line = line
            yield client
    finally:
        line.close()
        for name in [*line.jobs]:
            line.drop(name)


def png(width: int = 8, height: int = 8, colour="white") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def painted(*box: int, side: int = 8) -> str:
    """A region as the page sends it."""
    picture = Image.new("L", (side, side))
    picture.paste(255, box)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(client: TestClient, **wanted) -> str:
    """The id of an explanation of the first example."""
    given = client.post("/examples/0").raise_for_status().json()
    told = client.post("/explanations", json={"picture": given["id"], **wanted})
    return told.raise_for_status().json()["id"]


def events(client: TestClient, key: str) -> list[dict]:
    """All that is told of an explanation, until it is over."""
    with client.stream("GET", f"/explanations/{key}/events") as stream:
        return [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line]
