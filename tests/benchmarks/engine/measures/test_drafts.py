"""Which texts drafts are measured with."""

from collections import Counter
from typing import Any, cast

from benchmarks.engine.load import Load, Request, Times
from benchmarks.engine.measures.drafts import speculative_gain
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import Settings
from tests.support.benchmarking import ignore
from tests.support.servers import DEMO


class Recorder:
    """In place of an engine: all that matters here is what it is asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def run(self, load: Load) -> list[Times]:
        self.requests.extend(load.requests)
        return [Times(0.0, 1.0, 2.0, request.tokens) for request in load.requests]

    @property
    def thinking(self) -> list[Request]:
        return [request for request in self.requests if request.budget]


def test_no_thoughts_are_measured_that_were_learnt_from_the_same_text() -> None:
    drafting, plain = Recorder(), Recorder()
    engines: dict[str, Any] = {"ours": cast(Any, drafting), "stock": cast(Any, plain)}
    both = Pair("demo", 667, **engines, repeats=7, tokens=16, limit=1.0, progress=ignore)
    settings = Settings(DEMO)
    lines = list(speculative_gain(both, settings))
    given = Counter(request.prompt + request.text for request in drafting.thinking)
    assert max(given.values()) == 1
    # The other engine has the same texts in the same order.
    assert [request.text for request in plain.thinking] == [it.text for it in drafting.thinking]
    # Right after the start as many as are measured, and before each size of batch a warm-up.
    assert "right after the start" in lines[0].case
    measured = 7 * (1 + 4 + 4 + 8 + 32 + 4 + 16)
    warm_up = sum(request.tokens for request in drafting.thinking[7:][:54])
    assert warm_up >= settings.warm_up_tokens
    assert len(drafting.thinking) == measured + 54 + 56 + 64
