"""The accuracy of the served demonstration model: problems sent over HTTP, by thought budget.

Any server with `/v1/completions` that takes the request fields `thought_budget`,
`thought_temperature` and `thought_threshold` will do.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypedDict

import httpx

from training.demo.accuracy import held_out
from training.demo.corpus.problems import Problem
from training.demo.forced_thoughts import Evaluation
from training.demo.report import FamilyAccuracy, family_table
from training.errors import UsageError

CONCURRENT_REQUESTS = 64
ANSWER_TIMEOUT = 600.0
"""Seconds for one response."""


class ThoughtFields(TypedDict):
    """How a request thinks, in the server's words; the threshold is in nats."""

    thought_budget: int
    thought_temperature: float
    thought_threshold: float


def next_token(
    client: httpx.Client, model: str, problem: Problem, seed: int, fields: ThoughtFields
) -> str:
    """The next token, without its leading space; raises `UsageError` for a refused request."""
    response = client.post(
        "/v1/completions",
        json={
            "model": model,
            "prompt": problem.prompt,
            "max_tokens": 1,
            "temperature": 0,
            "seed": seed,
            **fields,
        },
    )
    if response.is_error:
        raise UsageError(f"the server answered {response.status_code}: {response.text[:200]}")
    text: str = response.json()["choices"][0]["text"]
    return text.strip()


def share_right(
    client: httpx.Client,
    model: str,
    problems: Sequence[Problem],
    fields: ThoughtFields,
) -> float:
    """The share of right answers."""
    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        answers = pool.map(
            lambda seed, problem: next_token(client, model, problem, seed, fields),
            itertools.count(),
            problems,
        )
        right = [
            text == problem.answer.strip() for text, problem in zip(answers, problems, strict=True)
        ]
    return sum(right) / len(right)


def served_accuracy(
    url: str, families: Sequence[str], evaluation: Evaluation, threshold: float
) -> FamilyAccuracy:
    """Accuracy by family and budget, with thoughts where they are expected to save more than the
    threshold (nats, 0 = always); raises `UsageError` where no such server answers.
    """
    limits = httpx.Limits(max_connections=CONCURRENT_REQUESTS)
    try:
        with httpx.Client(base_url=url, timeout=ANSWER_TIMEOUT, limits=limits) as client:
            model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
            return {
                family: {
                    budget: share_right(
                        client,
                        model,
                        held_out(family, evaluation),
                        ThoughtFields(
                            thought_budget=budget,
                            thought_temperature=evaluation.temperature,
                            thought_threshold=threshold,
                        ),
                    )
                    for budget in evaluation.budgets
                }
                for family in families
            }
    except httpx.HTTPError as error:
        raise UsageError(f"{url} does not answer as a server should: {error}") from None


def served_tables(
    url: str, families: Sequence[str], evaluation: Evaluation, threshold: float
) -> str:
    """Two Markdown tables: greedy thoughts and thoughts sampled at temperature 1."""
    greedy, sampled = (
        family_table(
            served_accuracy(url, families, replace(evaluation, temperature=temperature), threshold)
        )
        for temperature in (0.0, 1.0)
    )
    return f"Greedy thoughts:\n\n{greedy}\n\nSampled at temperature 1:\n\n{sampled}"
