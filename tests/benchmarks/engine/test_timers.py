"""Stop watches around functions."""

import pytest

from benchmarks.engine.timers import BASE_MODEL, Timers


def test_time_counts_for_the_innermost_timed_function() -> None:
    class Step:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    ticks = iter(range(100))
    timers = Timers(clock=lambda: float(next(ticks)))
    Step.outer = timers._timed("outer", "a", Step.outer)  # type: ignore[method-assign]
    Step.inner = timers._timed("inner", "b", Step.inner)  # type: ignore[method-assign]
    assert Step().outer() == 2
    # The clock is read four times: outer begins, inner begins, inner ends, outer ends.
    assert timers.seconds == {"a": 2.0, "b": 1.0}
    timers.reset()
    assert timers.seconds == {}


def test_a_function_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_such_method"):
        Timers().install({"benchmarks.engine.timers:Timers.no_such_method": BASE_MODEL})
