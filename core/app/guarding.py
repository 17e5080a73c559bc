"""Who may ask: this machine's own pages or, elsewhere, who has the password; and what a page may load."""

import base64
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ace_counterfactuals.core.app.config import LOOPBACK, ServingConfig
from ace_counterfactuals.core.base.reading import read_text
from ace_counterfactuals.core.base.settings import FlagError

AUTH = "ACE_APP_AUTH"
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
STRANGE = "/reports/"
"""Where pages lie that others may have made: they run, but as pages of nobody, which may ask the app for nothing"""
OF_STRANGERS = {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",  # nobody is another origin
}
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def credentials(config: ServingConfig, environ: Mapping[str, str] = os.environ) -> str:
    """USER:PASSWORD, '' where none is asked for.  Raises FlagError where one has to be, and for what is none."""
    try:
        found = read_text(Path(config.auth_file).expanduser()) if config.auth_file else environ.get(AUTH, "")
    except (OSError, ValueError) as error:
        raise FlagError("auth_file", f"{config.auth_file}: cannot be read: {error}") from None
    found = found.strip("\r\n")
    user, colon, password = found.partition(":")
    if found and not (user and colon and password):
        if config.auth_file:
            raise FlagError("auth_file", f"{config.auth_file}: wanted USER:PASSWORD")
        raise ValueError(f"{AUTH}: wanted USER:PASSWORD")
    if not found and config.host not in LOOPBACK:
        reason = f"{config.host}: can be reached from elsewhere; set {AUTH}=USER:PASSWORD, or give auth_file"
        raise FlagError("host", reason)
    return found


class Guard:
    """ASGI around ``app``.  auth: USER:PASSWORD, '' asks for none; then only names of this machine are answered to,
    whatever another site's name may lead to.  What changes something is taken from the app's own pages alone."""

    def __init__(self, app: Callable, auth: str):
        self.app, self.auth = app, auth.encode()

    async def __call__(self, scope: Message, receive: Callable, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = HEADERS | (OF_STRANGERS if scope["path"].startswith(STRANGE) else {})
                own = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        status, reason, more = self.refusal(scope)
        if not status:
            await self.app(scope, receive, sending)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), *more]
        await sending({"type": "http.response.start", "status": status, "headers": headers})
        await sending({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def refusal(self, scope: Message) -> tuple[int, str, list[tuple[bytes, bytes]]]:
        """Status, why, and headers; 0 where there is none."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.auth:
            if not hmac.compare_digest(_given(headers.get("authorization", "")), self.auth):
                return 401, "a name and a password are asked for", [(b"www-authenticate", b'Basic realm="ace"')]
        elif urlsplit(f"//{host}").hostname not in LOOPBACK:
            return 421, "only this machine's own names are answered to", []
        if scope["method"] not in ("GET", "HEAD"):
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
            if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != host):
                return 403, "asked from another site", []
        return 0, "", []


def _given(header: str) -> bytes:
    """USER:PASSWORD of an Authorization header."""
    kind, _, text = header.partition(" ")
    try:
        return base64.b64decode(text, validate=True) if kind.lower() == "basic" else b""
    except ValueError:
        return b""
