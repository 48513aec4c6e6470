"""Errors that users see as one line, without a traceback."""


class LoadTestError(Exception):
    """A mistake that the user can correct; the message says what is wrong and how to correct it."""
