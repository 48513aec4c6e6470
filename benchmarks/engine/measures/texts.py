"""Texts that are thought about: documents and short answers, each another one."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.engine.load import Load, Request
from benchmarks.engine.measures.settings import Settings
from quietstar_infer.config import QuietStarConfig, load_tokenizer
from quietstar_infer.errors import UnsupportedError
from training.demo.corpus.problems import held_out_problems
from training.demo.corpus.stories import make_story
from training.demo.problem_files import FILE_SEED, text_row

# More than all measures take with the usual repetitions.
_PROBLEMS = 2000
# What is given of a document as its prompt.
_BEGINNING = 2
# What is left of it as the answer to the rest: in the demonstration's problems a number, what is
# counted, a full stop. One more token follows.
_ANSWER = 3


@dataclass(frozen=True)
class Texts:
    """Token ids of texts without end, and how they are thought about: with thoughts of `budget`
    tokens where these are expected to save more than `threshold` nats.
    """

    budget: int
    threshold: float
    ids: Iterator[tuple[int, ...]]

    @classmethod
    def of(cls, settings: Settings) -> "Texts":
        """The texts of the settings that are long enough for a batch of them to stay full; over and
        over, if they are too few. Raises `UnsupportedError` where there are none.
        """
        config = QuietStarConfig.from_checkpoint(settings.checkpoint)
        tokenizer = load_tokenizer(settings.checkpoint)
        encoded = (tuple(tokenizer.encode(text)) for text in _contents(settings.documents))
        shortest = max(settings.adaptive_tokens, _ANSWER + 2)
        ids = [each for each in encoded if len(each) >= shortest]
        if not ids:
            raise UnsupportedError(
                f"{settings.documents or 'the demonstration'} has no text of {shortest} tokens or "
                "more"
            )
        return cls(
            min(config.default_thought_budget, settings.mixed_budget),
            config.default_thought_threshold or config.effort_thresholds.medium,
            itertools.cycle(ids),
        )

    @property
    def where(self) -> str:
        """In words, for a line's case."""
        return f"budget {self.budget} over {self.threshold:g} nats"

    def documents(self, number: int) -> tuple[Request, ...]:
        """The next documents, given token by token."""
        return self._given(number, _BEGINNING)

    def answers(self, number: int) -> tuple[Request, ...]:
        """The next short answers, given token by token, each with one more token, sampled.

        Times count from a request's first token: that is the last one of the question, so that the
        answer's first token counts, and the prefill does not.
        """
        requests = self._given(number, -_ANSWER - 1)
        return tuple(replace(request, tokens=request.tokens + 1) for request in requests)

    def _given(self, number: int, place: int) -> tuple[Request, ...]:
        """Texts as prompts up to a place, and from there on as what is given token by token."""
        return tuple(
            Request(ids[:place], self.budget, len(ids[place:]), self.threshold, ids[place:])
            for ids in itertools.islice(self.ids, number)
        )


def groups(requests: Sequence[Request], batch: int) -> list[Load]:
    """Batches of them."""
    starts = range(0, len(requests), batch)
    return [Load(tuple(requests[start : start + batch])) for start in starts]


def always(requests: Sequence[Request]) -> tuple[Request, ...]:
    """The same, thought about at every token."""
    return tuple(replace(request, threshold=0.0) for request in requests)


def without_thoughts(requests: Sequence[Request]) -> tuple[Request, ...]:
    """As many tokens, sampled, without thoughts."""
    return tuple(replace(request, budget=0, text=()) for request in requests)


def _contents(file: Path | None) -> Iterator[str]:
    """Of a file, or held-out problems of the demonstration, all different."""
    if file is None:
        problems = itertools.islice(held_out_problems(make_story, FILE_SEED), _PROBLEMS)
        return (text_row(problem)["text"] for problem in problems)
    return (json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines())
