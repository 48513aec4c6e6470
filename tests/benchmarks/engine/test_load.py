"""Requests and the times of their answers."""

from benchmarks.engine.load import Load, Times, per_token, random_requests, to_first


def test_times_of_requests() -> None:
    times = [Times(sent=1.0, first=2.0, last=5.0, tokens=4), Times(1.0, 4.0, 5.0, 2)]
    assert per_token(times) == 1.0
    assert to_first(times) == 2.0


def test_prompts_are_the_same_at_every_call() -> None:
    first, again = (
        random_requests(3, length=5, vocab_size=60, budget=2, tokens=4),
        random_requests(3, length=5, vocab_size=60, budget=2, tokens=4),
    )
    assert first == again
    assert len({ask.prompt for ask in first}) == 3
    assert Load(first).background == ()
