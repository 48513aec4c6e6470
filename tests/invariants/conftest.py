"""The session's servers are those of the server's tests."""

from tests.server.conftest import demo_server

__all__ = ["demo_server"]
