"""Errors that the server answers or prints in one sentence."""


class BadRequest(Exception):
    """A request that cannot be served as it is: HTTP 400 in OpenAI's error shape.

    Not a `ValueError`: pydantic would wrap it, and its message would drown in a list of validation
    errors.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class StartError(Exception):
    """The server cannot start with these options; the message says why."""


class EngineFailed(Exception):
    """The engine did not start, or died while the server was running."""
