"""Mistakes of the user; the message tells what to do instead."""


class UsageError(ValueError):
    """A request that cannot be carried out as it was given."""
