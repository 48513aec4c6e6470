"""A made-up hub: one repository with one file, which is larger than some disks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_COMMIT = "0" * 40
_FILE = "model.safetensors"
_SIZE = 4 << 20


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        content = self._content()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _content(self) -> bytes:
        if "/resolve/" in self.path:
            return bytes(_SIZE)
        if "/tree/" in self.path:
            return json.dumps(
                [{"type": "file", "path": _FILE, "size": _SIZE, "oid": _COMMIT}]
            ).encode()
        files = [{"rfilename": _FILE, "size": _SIZE}]
        return json.dumps({"id": "someone/model", "sha": _COMMIT, "siblings": files}).encode()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@contextmanager
def made_up_hub() -> Iterator[str]:
    """The address of a hub, for HF_ENDPOINT, for the length of a `with` block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
