"""The session's server is that of the server's tests."""

from tests.server.conftest import server

__all__ = ["server"]
