"""The session's server is that of the server's tests."""

from tests.support.servers import server

__all__ = ["server"]
