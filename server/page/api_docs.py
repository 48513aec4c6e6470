"""`/docs`: a page about the API, made from its OpenAPI document, without files of other hosts."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from server.vllm_api import offline_docs

# The page's script and style, which come with vLLM.
_FOLDER = Path(offline_docs.__file__).parent / "static"
_FILES = "/docs/files"
_NO_ICON = "data:,"


def add_docs(app: FastAPI) -> None:
    """Serve the page, if the application has an OpenAPI document."""
    document = app.openapi_url
    if document is None:
        return
    app.mount(_FILES, StaticFiles(directory=_FOLDER))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}{document}",
            title=app.title,
            swagger_js_url=f"{root}{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_FILES}/swagger-ui.css",
            swagger_favicon_url=_NO_ICON,
        )
