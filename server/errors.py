"""Errors that become a response or a last line of the process, each of one sentence."""

from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import ClassVar


class RequestError(Exception):
    """A request that is refused or cut off; the message says what is allowed.

    `status` and `kind` are those of OpenAI's error shape, `reason` is the label of the metric
    `quietstar:requests_refused_total` (None: not counted). Not a `ValueError`: pydantic would make
    it one of its validation errors.
    """

    status: ClassVar[HTTPStatus]
    kind: ClassVar[str]
    reason: str | None = None

    def __init__(
        self,
        message: str,
        parameter: str | None = None,
        *,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.reason = reason or self.reason
        self.headers = dict(headers or {})


class BadRequest(RequestError):
    """A request that cannot be served as it is, now or later."""

    status = HTTPStatus.BAD_REQUEST
    kind = "BadRequestError"


class Unauthorized(RequestError):
    """A request without one of the server's API keys."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "AuthenticationError"
    reason = "api_key"


class WrongHost(RequestError):
    """A request for a host that is not this server's."""

    status = HTTPStatus.MISDIRECTED_REQUEST
    kind = "MisdirectedRequestError"
    reason = "host"


class ReceiveTimeout(RequestError):
    """A client that takes too long to send its request."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "RequestTimeoutError"
    reason = "receive_timeout"


class BodyTooLarge(RequestError):
    """A request whose body exceeds `--max-body-mib`."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "PayloadTooLargeError"
    reason = "body_size"


class Overloaded(RequestError):
    """A request that the server can serve, but not now."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "RateLimitError"


class Stopping(RequestError):
    """A request that is cut off because the server ends."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "ServiceUnavailableError"
    reason = "stopping"


class Unhealthy(RequestError):
    """The answer to a probe of a server whose engine has died or hangs."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "ServiceUnavailableError"


class OutOfTime(RequestError):
    """A request that took longer than the server allows."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    kind = "TimeoutError"
    reason = "request_timeout"


class NotFinite(RequestError):
    """A request for which the model computes NaN or infinities."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "InternalServerError"


class ExitStatus(IntEnum):
    """Exit statuses of the server's process, for supervisors and scripts."""

    STOPPED = 0
    ENGINE_FAILED = 1
    BAD_OPTION = 2
    ADDRESS_TAKEN = 3
    NO_MODEL = 4
    OUT_OF_MEMORY = 5
    DISK_FULL = 6


class StartError(Exception):
    """The server cannot start like this; the message says why."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.BAD_OPTION) -> None:
        super().__init__(message)
        self.status = status


class EngineFailed(StartError):
    """The engine did not start, or died while the server was running."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.ENGINE_FAILED) -> None:
        super().__init__(message, status)
