"""How the page's files are served; `test_static.py` runs them in a browser."""

import httpx
import pytest

from server.page.routes import PAGE

pytestmark = pytest.mark.slow

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def test_files_have_their_types_and_strict_headers(http: httpx.Client) -> None:
    for path in ("/", *(f"/page/{file.name}" for file in PAGE.iterdir())):
        answer = http.get(path)
        assert answer.status_code == 200
        suffix = "." + path.rpartition(".")[2] if path != "/" else ".html"
        assert answer.headers["content-type"] == TYPES[suffix]
        policy = answer.headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert not [rule for rule in policy if "unsafe" in rule or "*" in rule]
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert http.head(path).status_code == 200
    outside = ("/page/../routes.py", "/page/%2e%2e/routes.py", "/page/%2e%2e/%2e%2e/app.py")
    for path in ("/page/nothing.js", *outside, "/page/"):
        assert http.get(path).status_code == 404
