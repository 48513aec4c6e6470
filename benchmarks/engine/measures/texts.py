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
# counted, a full stop.
_ANSWER = 3


@dataclass(frozen=True)
class Texts:
    """Token ids of texts, over and over, and how they are thought about: with thoughts of `budget`
    tokens where these are expected to save more than `threshold` nats. `end`: the token that ends
    an answer, where the tokenizer has one.
    """

    budget: int
    threshold: float
    ids: Iterator[tuple[int, ...]]
    end: tuple[int, ...]

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
            () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,),
        )

    @property
    def where(self) -> str:
        """In words, for a line's case."""
        return f"budget {self.budget} over {self.threshold:g} nats"

    def documents(self, number: int) -> tuple[Request, ...]:
        """The next documents, given token by token."""
        return tuple(self._given(ids, _BEGINNING) for ids in itertools.islice(self.ids, number))

    def answers(self, number: int) -> tuple[Request, ...]:
        """The next short answers, given token by token, with their end.

        Times count from a request's first token: that is the last one of the question, so that the
        answer's first token counts, and the prefill does not.
        """
        return tuple(
            self._given(ids + self.end, len(ids) - _ANSWER - 1)
            for ids in itertools.islice(self.ids, number)
        )

    def _given(self, ids: tuple[int, ...], place: int) -> Request:
        """A text as the prompt up to a place, and from there on given token by token."""
        given = ids[place:]
        return Request(ids[:place], self.budget, len(given), self.threshold, given)


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
