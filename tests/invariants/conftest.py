"""The session's servers are those of the server's tests."""

from tests.support.servers import demo_server

__all__ = ["demo_server"]
