"""Counts the tokens of a text, with the server's `/tokenize` or a local tokenizer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadtest.client.probe import ServerFacts
from loadtest.client.requests import headers
from loadtest.errors import LoadTestError
from loadtest.traffic.plan import Target

_SECONDS = 30.0

Count = Callable[[str], int]


@contextmanager
def token_count(
    tokenizer: str | None, target: Target, facts: ServerFacts
) -> Iterator[Count | None]:
    """A function that counts tokens, or None where there is neither a tokenizer nor `/tokenize`.

    Raises `LoadTestError` where the tokenizer that the user names cannot be loaded.
    """
    if tokenizer is not None:
        yield _local(tokenizer)
        return
    with httpx.Client(headers=headers(target), timeout=_SECONDS) as client:

        def count(text: str) -> int:
            body = {"model": facts.model, "prompt": text}
            response = client.post(f"{facts.url}/tokenize", json=body)
            return int(response.raise_for_status().json()["count"])

        yield count if _works(count) else None


def _works(count: Count) -> bool:
    try:
        return count("the") > 0
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
