"""The page at `/`: a few files, served as they are in `server/page`."""

import mimetypes
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "page"
# The page loads its own files and asks this server, nothing else; no script or style stands in its
# HTML, none is made of text, and no other site may frame it.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Kept, and asked for again by its ETag: a new server's page is never mixed with an old one's.
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Some systems know another type, and browsers refuse modules that are not of this one.
mimetypes.add_type("text/javascript", ".js")


def add_page(app: FastAPI) -> None:
    """Serve the page at `/` and its files in `/page/`."""
    files = _PageFiles(directory=PAGE)
    app.mount("/page", files)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response
