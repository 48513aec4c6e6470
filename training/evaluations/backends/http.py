"""The model over HTTP, through `/v1/completions` of this repository's server.

A document's tokens are scored by one request that returns the prompt (`echo` with `logprobs`), each
of the few tokens of an answer by a request of its own, which also names the allowed tokens. Every
request says its thought threshold: the server's default is of no effect.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import exp, log
from typing import Any, NamedTuple

import httpx

from training.errors import UsageError
from training.evaluations.backends.base import (
    Continuation,
    PassageScores,
    Sampling,
    ScoredPassage,
    TokenScore,
)
from training.evaluations.cost import thought_cost
from training.evaluations.sweep import Cell, sweep_cells
from training.evaluations.tasks.passages import Passage
from training.thoughts.decode import ThoughtSettings

MAX_CONCURRENCY = 32
"""Requests in flight at a time."""
REQUEST_TIMEOUT = 3600.0
"""Seconds for one response."""
MAX_NAMED_TOKENS = 128
"""Tokens that one request may name (vLLM's `logprob_token_ids`)."""
_TOKEN = "token_id:"


class Completion(NamedTuple):
    """The only choice of a response; its visible tokens, the thought tokens sampled for them, and
    those sampled in order to score the prompt.
    """

    choice: dict[str, Any]
    tokens: int
    thought_tokens: int
    prompt_thought_tokens: int


class HttpBackend:
    """A server's model, a `Backend`; the first that the server lists, unless a name is given."""

    def __init__(
        self, client: httpx.Client, thoughts: ThoughtSettings, model: str | None = None
    ) -> None:
        self.client = client
        self.thoughts = thoughts
        served = self._get("/v1/models")["data"]
        names = [entry["id"] for entry in served]
        if model is not None and model not in names:
            raise UsageError(f"the server does not serve {model} but {', '.join(names)}")
        self.model = model or names[0]
        self.about = {**served[0], "server": self._get("/version")}

    def describe(self) -> dict[str, object]:
        """What the server reports about model and versions."""
        return {"url": str(self.client.base_url), **self.about}

    def score(
        self, passages: Sequence[Passage], *, with_thoughts: bool = False
    ) -> list[PassageScores]:
        """As `Backend.score`."""
        cells = sweep_cells(self.thoughts.budgets, self.thoughts.thresholds)
        jobs = [(passage, cell) for passage in passages for cell in cells]

        def run(job: tuple[Passage, Cell]) -> ScoredPassage:
            passage, cell = job
            if passage.start == 1 and not passage.allowed:
                return self._score_document(passage, cell, with_thoughts)
            return self._score_answer(passage, cell)

        with ThreadPoolExecutor(MAX_CONCURRENCY) as pool:
            results = list(pool.map(run, jobs))
        return [
            dict(zip(cells, results[start : start + len(cells)], strict=True))
            for start in range(0, len(results), len(cells))
        ]

    def continue_text(
        self, ids: Sequence[int], cell: Cell, sampling: Sampling
    ) -> list[Continuation]:
        """As `Backend.continue_text`."""

        def run(seed: int) -> Continuation:
            found = self._complete(
                ids,
                cell,
                seed=seed,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                stop=list(sampling.stop),
            )
            cost = thought_cost(found.tokens, found.thought_tokens, cell)
            return Continuation(found.choice["text"], cost)

        with ThreadPoolExecutor(MAX_CONCURRENCY) as pool:
            return list(pool.map(run, sampling.seeds))

    def _score_document(self, passage: Passage, cell: Cell, with_thoughts: bool) -> ScoredPassage:
        """One request for all tokens."""
        shown = {"return_thoughts": True} if with_thoughts and cell.budget else {}
        found = self._complete(passage.ids, cell, max_tokens=0, echo=True, logprobs=1, **shown)
        logprobs = found.choice["logprobs"]
        thoughts = found.choice.get("prompt_thoughts") or [None] * len(passage.ids)
        scores = [
            TokenScore(
                logprob,
                logprob >= max(top.values()),
                mixing_weight=thought and thought["mixing_weight"],
                thought_ids=thought and thought["token_ids"],
                expected_gain=thought and thought["expected_gain"],
            )
            for logprob, top, thought in zip(
                logprobs["token_logprobs"][1:],
                logprobs["top_logprobs"][1:],
                thoughts[1:],
                strict=True,
            )
        ]
        cost = thought_cost(len(scores), found.prompt_thought_tokens, cell)
        return ScoredPassage(scores, cost)

    def _score_answer(self, passage: Passage, cell: Cell) -> ScoredPassage:
        """A request for each token."""
        scores, thought_tokens = [], 0
        for index in range(passage.start, len(passage.ids)):
            score, sampled = self._score_token(passage, index, cell)
            scores.append(score)
            thought_tokens += sampled
        return ScoredPassage(scores, thought_cost(len(scores), thought_tokens, cell))

    def _score_token(self, passage: Passage, index: int, cell: Cell) -> tuple[TokenScore, int]:
        """One request for one token, sampled greedily; and its thought tokens."""
        token = passage.ids[index]
        named = sorted({token, *passage.allowed})
        if len(named) > MAX_NAMED_TOKENS:
            raise UsageError(
                f"the tokenizer has {len(passage.allowed)} tokens of digits, and a server tells "
                f"the log-probabilities of {MAX_NAMED_TOKENS}; evaluate in process, without --url"
            )
        completion = self._complete(
            passage.ids[:index],
            cell,
            max_tokens=1,
            logprobs=len(named),
            logprob_token_ids=named,
            return_tokens_as_token_ids=True,
        )
        logprobs = completion.choice["logprobs"]
        (sampled,), (found,) = logprobs["tokens"], logprobs["top_logprobs"]
        by_token = {int(name.removeprefix(_TOKEN)): value for name, value in found.items()}
        among = None
        if token in passage.allowed:
            total = sum(exp(by_token[other]) for other in passage.allowed)
            among = by_token[token] - log(total)
        score = TokenScore(by_token[token], sampled == f"{_TOKEN}{token}", among)
        return score, completion.thought_tokens

    def _complete(self, ids: Sequence[int], cell: Cell, **fields: Any) -> Completion:
        """A completion of one choice; raises `UsageError` for a refused request."""
        body = {
            "model": self.model,
            "prompt": list(ids),
            "temperature": 0,
            "seed": self.thoughts.seed,
            "thought_budget": cell.budget,
            "thought_threshold": cell.threshold,
            "thought_temperature": self.thoughts.temperature,
            **fields,
        }
        with _explained(self.client):
            response = self.client.post("/v1/completions", json=body)
        if response.is_error:
            raise UsageError(f"the server answered {response.status_code}: {_reason(response)}")
        content = response.json()
        return Completion(
            content["choices"][0],
            *_visible_and_thoughts(content["usage"]),
            content["quiet_star"].get("prompt_thought_tokens") or 0,
        )

    def _get(self, path: str) -> dict[str, Any]:
        with _explained(self.client):
            content: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return content


def _visible_and_thoughts(usage: dict[str, Any]) -> tuple[int, int]:
    """Tokens of each kind, which a server counts apart, or as OpenAI does (`--usage openai`)."""
    completion: int = usage["completion_tokens"]
    if "thought_tokens" in usage:
        return completion, usage["thought_tokens"]
    thoughts: int = usage["completion_tokens_details"]["reasoning_tokens"]
    return completion - thoughts, thoughts


@contextmanager
def served_by(
    url: str, thoughts: ThoughtSettings, model: str | None = None
) -> Iterator[HttpBackend]:
    """A server's model for the length of a `with` block; raises `UsageError` where none answers."""
    limits = httpx.Limits(max_connections=MAX_CONCURRENCY)
    with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT, limits=limits) as client:
        yield HttpBackend(client, thoughts, model)


@contextmanager
def _explained(client: httpx.Client) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, ValueError) as error:
        raise UsageError(
            f"{client.base_url} does not answer as a server should: {error or type(error).__name__}"
        ) from None


def _reason(response: httpx.Response) -> str:
    """The error message of a refused request."""
    try:
        message: str = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
    return message
