"""Ctrl-C, noted where an exception would lose what has been measured."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interrupts:
    seen: bool = False
    """Whether Ctrl-C was pressed."""


@contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """For the length of a `with` block the first Ctrl-C is only noted; a second one raises
    `KeyboardInterrupt`. Does nothing in other threads than the main one, which get no signals."""
    interrupts = Interrupts()

    def note(number: int, frame: object) -> None:
        if interrupts.seen:
            raise KeyboardInterrupt
        interrupts.seen = True

    with _handling_interrupts(note):
        yield interrupts


@contextmanager
def ignored_interrupts() -> Iterator[None]:
    """Processes that are started within the `with` block ignore Ctrl-C from their first moment: it
    goes to all processes of a terminal, and the main one decides what it means."""
    with _handling_interrupts(signal.SIG_IGN):
        yield


@contextmanager
def _handling_interrupts(
    handler: Callable[[int, object], None] | signal.Handlers,
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
