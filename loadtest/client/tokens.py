"""Counts the tokens of a prompt: with a local tokenizer, the server's `/tokenize`, or its usage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadtest.client.probe import PROBE_TEXT, ServerFacts, completions_url
from loadtest.client.requests import headers, prompt_fields
from loadtest.errors import LoadTestError
from loadtest.traffic.plan import Target

_SECONDS = 30.0

Count = Callable[[str], int]


@contextmanager
def token_count(
    tokenizer: str | None, target: Target, facts: ServerFacts, by_usage: bool = False
) -> Iterator[Count | None]:
    """A function that counts the tokens of a prompt as the server does, its chat template included;
    None where there is neither a tokenizer nor `/tokenize`, and, with `by_usage`, no usage that
    tells the prompt tokens of a short request.

    Raises `LoadTestError` where the tokenizer that the user names cannot be loaded.
    """
    if tokenizer is not None:
        local = _local(tokenizer)
        # What the server adds to every prompt: a chat's template, a token at the beginning.
        added = 0 if facts.probe_tokens is None else facts.probe_tokens - local(PROBE_TEXT)
        yield lambda text: local(text) + added
        return
    with httpx.Client(headers=headers(target), timeout=_SECONDS) as client:

        def count(text: str) -> int:
            body = {"model": facts.model, **prompt_fields(target, text)}
            response = client.post(f"{facts.url}/tokenize", json=body)
            return int(response.raise_for_status().json()["count"])

        def used(text: str) -> int:
            body = {"model": facts.model, "max_tokens": 1, **prompt_fields(target, text)}
            url = completions_url(facts.api, target.chat)
            response = client.post(url, json=body, timeout=target.timeout)
            return int(response.raise_for_status().json()["usage"]["prompt_tokens"])

        if _works(count):
            yield count
        else:
            yield used if by_usage and _works(used) else None


def _works(count: Count) -> bool:
    try:
        return count(PROBE_TEXT) > 0
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False


def _local(name: str) -> Count:
    from tokenizers import Tokenizer  # not needed unless a tokenizer is named

    file = Path(name) / "tokenizer.json"
    try:
        if file.exists():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises nothing more specific
        raise LoadTestError(
            f"no tokenizer in {name}: must be a folder with a tokenizer.json, or a model of the "
            f"hub ({error})"
        ) from error
    return lambda text: len(tokenizer.encode(text).ids)
