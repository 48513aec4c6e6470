"""What a load test tells its user instead of a traceback."""


class LoadTestError(Exception):
    """Something that the user can put right; the message says what and how."""
