"""What ends a command with one line: mistakes of the user, and runs that cannot go on."""


class UsageError(ValueError):
    """A request that cannot be carried out as it was given; the message tells what to do instead.
    Exit status 2.
    """


class TrainingStopped(Exception):
    """A run that cannot go on; its last good checkpoint is complete. Exit status 1."""
