"""Mistakes of the person at the command line; the message says what to do instead."""


class UsageError(ValueError):
    """A request that cannot be carried out as it was given."""
