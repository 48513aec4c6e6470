"""Finds out a server's model, thought budgets and way of counting tokens, before it is loaded.

With httpx, which is simpler; the load itself is sent with aiohttp, see `loadtest.client.exchange`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from loadtest.client.answer import Answer, Counting, Usage
from loadtest.client.exchange import error_message
from loadtest.client.requests import COUNTING_FIELDS, headers, request_fields
from loadtest.client.sse import EventParser
from loadtest.errors import LoadTestError
from loadtest.traffic.plan import Target

PROBE_TEXT = "the"
"""The prompt of the first, short request."""
_ENDPOINT = re.compile(r"(?:/v1)?(?:/(?:chat/)?completions|/models)?/*")
"""What an address may end with beyond the server's own."""
_ALIKE = ("model", "max_thought_budget", "has_thresholds", "counting", "counting_fields")
"""In what the servers of one run are alike, so that any request is good for any of them."""
_SECONDS = 30.0
"""Timeout of requests that no model has to answer."""


@dataclass(frozen=True)
class ServerFacts:
    """What was found out about a server."""

    url: str
    """Without `/v1`."""
    model: str
    version: str | None
    max_thought_budget: int | None
    """None = a server without thought budgets."""
    has_thresholds: bool = False
    """It has `thought_threshold`, and lists its default."""
    counting: Counting = Counting.CHUNKS
    counting_fields: Mapping[str, Any] = field(default_factory=dict)
    """Those that it accepts, and needs for counting so."""
    reports_usage: bool = False
    salts_cache: bool = False
    """It has `cache_salt`, with which a cell finds nothing in the prefix cache."""
    probe_tokens: int | None = None
    """The prompt tokens of `PROBE_TEXT`, as its usage counts them."""
    versioned: bool = True
    """Whether its API is at `/v1`, or else right at the URL."""

    @property
    def api(self) -> str:
        """The URL of its API."""
        return f"{self.url}/v1" if self.versioned else self.url

    @property
    def counts_tokens(self) -> bool:
        """Whether the tokens of a chunk can be counted."""
        return self.counting is not Counting.CHUNKS


def base_url(url: str) -> str:
    """A server's URL without what may follow it: `/v1`, `/v1/completions` and other endpoints, any
    number of slashes; raises `LoadTestError` for an invalid one."""
    url = url.strip()
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise LoadTestError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise LoadTestError(f"{url!r} is no URL; one looks like http://localhost:8000")
    path = re.sub(r"/{2,}", "/", parsed.path)
    shortest = next(path[:end] for end in range(len(path) + 1) if _ENDPOINT.fullmatch(path[end:]))
    return f"{parsed.scheme}://{parsed.netloc.decode()}{shortest}"


def completions_url(api: str, chat: bool) -> str:
    return f"{api}/{'chat/' if chat else ''}completions"


def probe_all(target: Target) -> tuple[ServerFacts, ...]:
    """Probe a server and its replicas; raises `LoadTestError` where they are not alike."""
    first, *others = [probe(replace(target, url=url)) for url in (target.url, *target.replicas)]
    urls = [first.url]
    for other in others:
        if other.url in urls:
            raise LoadTestError(f"--url {other.url} is there twice")
        urls.append(other.url)
        for name in _ALIKE:
            here, there = getattr(first, name), getattr(other, name)
            if here != there:
                raise LoadTestError(
                    f"{other.url} is not like {first.url}, as the servers of one run must be: its "
                    f"{name.replace('_', ' ')} is {there}, not {here}"
                )
    return (first, *others)


def probe(target: Target) -> ServerFacts:
    """Read the server's list of models and send one short request; raises `LoadTestError`."""
    url = base_url(target.url)
    with httpx.Client(headers=headers(target), timeout=_SECONDS) as client:
        models, versioned = _models(client, url)
        model = _choose_model(models, target.model, url)
        quiet_star = model.get("quiet_star") or {}
        api = f"{url}/v1" if versioned else url
        counting, fields, usage = _try_out(client, api, model["id"], target)
        return ServerFacts(
            url=url,
            model=model["id"],
            version=_version(client, url),
            max_thought_budget=quiet_star.get("max_thought_budget"),
            has_thresholds="default_thought_threshold" in quiet_star,
            counting=counting,
            counting_fields=fields,
            reports_usage=usage is not None,
            salts_cache=model.get("owned_by") == "vllm",
            probe_tokens=usage.prompt_tokens if usage else None,
            versioned=versioned,
        )


def _models(client: httpx.Client, url: str) -> tuple[list[dict[str, Any]], bool]:
    """The server's models, and whether they are listed at `/v1/models`."""
    try:
        response = client.get(f"{url}/v1/models")
        versioned = response.status_code != 404
        if not versioned:
            response = client.get(f"{url}/models")
    except httpx.HTTPError as error:
        raise LoadTestError(
            f"no server answers at {url} ({error}): is it running, and is this its address?"
        ) from error
    if response.status_code in (401, 403):
        raise LoadTestError(f"{url} wants another API key ({response.status_code}): --api-key")
    try:
        models = response.raise_for_status().json()["data"]
        names = [model["id"] for model in models]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
        raise LoadTestError(
            f"{url}/v1/models gives no list of models (status {response.status_code}): "
            "is this the address of an OpenAI-compatible server? It ends before /v1, or in it"
        ) from error
    if not names:
        raise LoadTestError(f"{url} serves no model")
    return list(models), versioned


def _choose_model(models: list[dict[str, Any]], wanted: str | None, url: str) -> dict[str, Any]:
    if wanted is None:
        return models[0]
    for model in models:
        if model["id"] == wanted:
            return model
    served = ", ".join(model["id"] for model in models)
    raise LoadTestError(f"{url} does not serve the model {wanted}, but {served}")


def _version(client: httpx.Client, url: str) -> str | None:
    try:
        response = client.get(f"{url}/version")
        versions = response.raise_for_status().json()
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    except (httpx.HTTPError, ValueError, AttributeError):
        return None


def _try_out(
    client: httpx.Client, url: str, model: str, target: Target
) -> tuple[Counting, Mapping[str, Any], Usage | None]:
    """The best way to count this server's tokens, the fields for it, and the usage that it
    reports."""
    both = COUNTING_FIELDS[Counting.TOKEN_IDS] | COUNTING_FIELDS[Counting.RUNNING_USAGE]
    attempts: list[Mapping[str, Any]] = [both, COUNTING_FIELDS[Counting.CHUNKS], {}]
    for attempt in attempts:
        response = _short_stream(client, url, model, target, attempt)
        if response.status_code == 200:
            counting, usage = _best_counting(response.content)
            # What it accepts may be less than what a way of counting usually needs.
            wanted = COUNTING_FIELDS[counting]
            return counting, wanted if wanted.items() <= attempt.items() else attempt, usage
        if response.status_code != 400:
            break  # another set of fields would not help
    raise LoadTestError(
        f"{url} refuses a first, short request (status {response.status_code}): "
        f"{error_message(response.text)}"
    )


def _short_stream(
    client: httpx.Client, url: str, model: str, target: Target, fields: Mapping[str, Any]
) -> httpx.Response:
    # More than one token, to distinguish running usage from usage at the end.
    body = {"model": model, "max_tokens": 4, **fields, **request_fields(target, PROBE_TEXT)}
    try:
        return client.post(completions_url(url, target.chat), json=body, timeout=target.timeout)
    except httpx.HTTPError as error:
        raise LoadTestError(f"{url} does not answer a first, short request: {error!r}") from error


def _best_counting(stream: bytes) -> tuple[Counting, Usage | None]:
    chunks = _read(stream, Counting.CHUNKS)
    for counting in (Counting.TOKEN_IDS, Counting.RUNNING_USAGE):
        answer = _read(stream, counting)
        counted = answer.usage.completion_tokens if answer.usage else None
        # Some servers report usage in the last chunk only: too late for the tokens before.
        arrivals = answer.arrivals
        in_time = arrivals[:1] == chunks.arrivals[:1]
        if arrivals and in_time and counted in (len(arrivals), len(answer.token_times)):
            return counting, answer.usage
    return Counting.CHUNKS, chunks.usage


def _read(stream: bytes, counting: Counting) -> Answer:
    """The answer in a stream; its times are the numbers of the events."""
    answer = Answer(counting)
    for number, event in enumerate(EventParser().feed(stream)):
        answer.add(event, number)
    if counting is not Counting.CHUNKS:
        answer.complete()
    return answer
