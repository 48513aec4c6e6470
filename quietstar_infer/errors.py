"""Errors that a user can mend; every message says what was wrong and what is expected."""


class CheckpointError(ValueError):
    """A folder that should be a Quiet-STaR checkpoint is not one, or is incomplete."""


class UnsupportedError(ValueError):
    """An engine option that thinking does not work with (yet)."""


class ThoughtParamsError(ValueError):
    """A request field of ours has a value that is not allowed.

    `parameter` names the field, for OpenAI's error shape.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter
