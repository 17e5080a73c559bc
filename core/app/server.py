"""The app's addresses: pages and their assets, pictures, explanations and their events, reports of result folders."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ace_counterfactuals.core.app.line import Job, Line
from ace_counterfactuals.core.app.pictures import LARGEST_FILE, Uploads
from ace_counterfactuals.core.app.results import Result
from ace_counterfactuals.core.app.strengths import TUNABLE, strengths
from ace_counterfactuals.core.app.studio import Asked, Studio
from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import parse_json, read_bytes
from ace_counterfactuals.core.base.schema import checked
from ace_counterfactuals.core.base.settings import flag_items, to_dict
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.report import page as report
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.records import WEAK

ASSETS = Path(__file__).parent / "assets"
STYLES = (*report.STYLES, "app.css")
SCRIPTS = ("dom.js", "theme.js", "words.js", "layers.js", "paint.js", "watch.js", "results.js", "app.js")
LARGEST_REQUEST = 4 * 2**20  # bytes, of a region above all
TICK = 0.1  # seconds between two looks at a job
BEAT = 2.0  # seconds of silence, after which a watcher is sent something
KINDS = {"original": "original", "counterfactual": "explanation", "mask": "mask"}
SERVED = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png", ".jpg": "image/jpeg"}


class Rooms:
    """What each address answers with.  folders: those whose reports may be read; output: where results are saved."""

    def __init__(self, studio: Studio, uploads: Uploads, line: Line, output: Path, folders: tuple[Path, ...]):
        self.studio, self.uploads, self.line, self.output = studio, uploads, line, output
        self.folders = tuple(dict.fromkeys(folder.expanduser().resolve() for folder in (*folders, output)))
        self.pages = report.templates(ASSETS)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/browse", self.browse),
            Route("/assets/{name}", self.asset),
            Route("/about", self.about),
            Route("/examples/{number:int}", self.example, methods=["GET", "POST"]),
            Route("/pictures", self.upload, methods=["POST"]),
            Route("/pictures/{key}", self.picture),
            Route("/explanations", self.ask, methods=["POST"]),
            Route("/explanations/{key}", self.drop, methods=["DELETE"]),
            Route("/explanations/{key}/events", self.events),
            Route("/explanations/{key}/stop", self.stop, methods=["POST"]),
            Route("/explanations/{key}/undo", self.undo, methods=["POST"]),
            Route("/explanations/{key}/save", self.save, methods=["POST"]),
            Route("/explanations/{key}/result.zip", self.zipped),
            Route("/explanations/{key}/{name}", self.shown),
            Route("/reports/{number:int}/{path:path}", self.report),
        ]

    async def page(self, request: Request) -> Response:
        return self.filled("app.html.j2", scripts=SCRIPTS, examples=len(self.studio.examples), flags=self.flags())

    async def browse(self, request: Request) -> Response:
        reports = await run_in_threadpool(self.reports)
        return self.filled("browse.html.j2", scripts=("theme.js", "browse.js"), reports=reports)

    def filled(self, name: str, **values: Any) -> Response:
        return HTMLResponse(self.pages.get_template(name).render(styles=STYLES, **values))

    def flags(self) -> list[dict[str, Any]]:
        """Those that the page may set, with their bounds."""
        known, values = flag_items(MainConfig), to_dict(self.studio.config)
        return [{"name": name, "known": known[name], "value": values[name]} for name in TUNABLE]

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (*STYLES, *SCRIPTS, "browse.js"):
            raise HTTPException(404)
        folder = ASSETS if (ASSETS / name).exists() else report.ASSETS
        return FileResponse(folder / name, media_type=SERVED[Path(name).suffix])

    async def about(self, request: Request) -> Response:
        studio = self.studio
        told = {"classes": studio.classes, "binary": studio.networks[0].binary, "weak": WEAK}
        return JSONResponse(told | {"strengths": strengths(studio.config.attack), "output": str(self.output)})

    async def example(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self.studio.examples):
            raise HTTPException(404)
        path = self.studio.examples[number]
        if request.method == "POST":
            return await self.added(read_bytes(path), path.name)
        return await self.drawn(path)

    async def drawn(self, path: Path) -> Response:
        """A picture as it is explained."""
        picture = await run_in_threadpool(self.studio.picture, path)
        return Response(atomic.png(to_pil(picture)), media_type="image/png")

    async def upload(self, request: Request) -> Response:
        name = unquote(request.headers.get("x-name", ""))
        return await self.added(await body(request, LARGEST_FILE), name)

    async def added(self, data: bytes, name: str) -> Response:
        """What the page is told of a new picture."""
        upload = await run_in_threadpool(self.uploads.add, data, name)
        (height, width), shares = await run_in_threadpool(self.studio.judge, upload.path)
        size = f"It is explained at {width} x {height} pixels."
        told = {"id": upload.id, "name": upload.name, "said": [*upload.said, size]}
        return JSONResponse(told | {"width": width, "height": height, "shares": shares})

    async def picture(self, request: Request) -> Response:
        return await self.drawn(self.uploads.get(request.path_params["key"]).path)

    async def ask(self, request: Request) -> Response:
        given = parse_json(await body(request, LARGEST_REQUEST), Path("request"))
        asked = checked(Asked, given, Path("request"))
        order = await run_in_threadpool(self.studio.order, asked, self.uploads.get(asked.picture))
        job = self.line.ask(order)
        return JSONResponse({"id": job.id, "place": self.line.place(job)})

    def job(self, request: Request) -> Job:
        job = self.line.jobs.get(request.path_params["key"])
        if job is None:
            raise HTTPException(404, "this explanation is not there any more")
        return job

    def result(self, request: Request) -> Result:
        result = self.job(request).result
        if result is None:
            raise HTTPException(404, "there is no result")
        return result

    async def drop(self, request: Request) -> Response:
        await run_in_threadpool(self.line.drop, request.path_params["key"])
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        self.line.stop(self.job(request))
        return Response(status_code=204)

    async def undo(self, request: Request) -> Response:
        studio = self.studio
        return JSONResponse(await run_in_threadpool(self.result(request).undo, studio.networks[0], studio.device))

    async def save(self, request: Request) -> Response:
        place = self.output / self.name(request)
        saved = await run_in_threadpool(self.result(request).save, place)
        return JSONResponse({"place": str(saved)})

    def name(self, request: Request) -> str:
        """Of the folder that a result is saved to."""
        return f"ace-{time.strftime('%Y%m%d-%H%M%S')}-{request.path_params['key']}"

    async def zipped(self, request: Request) -> Response:
        name = self.name(request)
        data = await run_in_threadpool(self.result(request).zipped, name)
        return Response(data, media_type="application/zip", headers=attached(f"{name}.zip"))

    async def shown(self, request: Request) -> Response:
        kind = KINDS.get(request.path_params["name"].removesuffix(".png"))
        if kind is None:
            raise HTTPException(404)
        return FileResponse(self.result(request).pictures[kind], media_type="image/png")

    async def events(self, request: Request) -> Response:
        """Server-sent events of one explanation, until it is over; whoever listens keeps it going."""
        return StreamingResponse(self.stream(self.job(request)), media_type="text/event-stream")

    async def stream(self, job: Job) -> AsyncIterator[str]:
        sent, drawn, last, quiet = 0, b"", None, 0.0
        job.watch()
        try:
            while True:
                over, picture, curve = job.over, job.picture, job.curve[sent:]
                told = {"state": job.state, "place": self.line.place(job), "error": job.error, **job.told}
                quiet += TICK
                if told != last or curve or quiet >= BEAT:
                    sent, last, quiet = sent + len(curve), told, 0.0
                    fresh: dict[str, Any] = {"curve": curve}
                    if picture and picture is not drawn:
                        drawn, fresh["picture"] = picture, data_url(picture)
                    if over and job.result:
                        fresh["result"] = job.result.told()
                    yield f"data: {json.dumps(told | fresh)}\n\n"
                if over or self.line.closed:
                    return
                await asyncio.sleep(TICK)
        finally:
            job.leave()

    def reports(self) -> list[dict[str, str]]:
        """Every report.html below the folders."""
        found = []
        for number, folder in enumerate(self.folders):
            for path in sorted(folder.rglob("report.html"))[:200]:
                inner = path.relative_to(folder).as_posix()
                found.append({"name": f"{folder.name}/{inner}", "href": f"/reports/{number}/{quote(inner)}"})
        return found

    async def report(self, request: Request) -> Response:
        number, inner = request.path_params["number"], request.path_params["path"]
        if number >= len(self.folders):
            raise HTTPException(404)
        path = (self.folders[number] / inner).resolve()
        if not (path.is_relative_to(self.folders[number]) and path.suffix in SERVED and path.is_file()):
            raise HTTPException(404)
        return FileResponse(path, media_type=SERVED[path.suffix])


async def body(request: Request, limit: int) -> bytes:
    """What was sent.  Raises ValueError for more bytes than ``limit``, which are not kept."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
    if size > limit:
        raise ValueError(f"more than {limit // 2**20} MiB were sent; send a smaller picture")
    return b"".join(parts)


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


async def refused(request: Request, error: Exception) -> Response:
    """A mistake of who asks, in a sentence."""
    return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)


async def failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def make_app(rooms: Rooms) -> Starlette:
    """The ASGI application, still without a guard."""
    handlers: dict[Any, Any] = {ValueError: refused, HTTPException: failed, ClientDisconnect: gone}
    return Starlette(routes=rooms.routes(), exception_handlers=handlers)
