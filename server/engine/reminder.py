"""Says, every now and then, that the engine is still starting."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 20
"""Between two lines: longer than a start takes with the caches of an earlier one."""


@contextmanager
def reminder() -> Iterator[None]:
    """For the length of a `with` block, print a line every `SECONDS`."""
    ended = threading.Event()
    thread = threading.Thread(target=remind, args=(ended.wait, _say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def remind(wait: Callable[[float], bool], say: Callable[[str], None]) -> None:
    """Say a line after every `wait` of so many seconds, until it returns that the start has
    ended.
    """
    waited = 0
    while not wait(SECONDS):
        waited += SECONDS
        say(
            f"Still starting after {waited} s. The first time, a model is compiled, which takes "
            "about a minute; a large one also takes long to load."
            if waited == SECONDS
            else f"Still starting after {waited} s …"
        )


def _say(line: str) -> None:
    print(line, flush=True)
