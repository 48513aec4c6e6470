"""What a server prints when it is ready: one command to paste."""

import json
import shlex

from quietstar_infer.config import quiet_star_section
from quietstar_infer.params import ThoughtLimits
from server.engine.engine import Engine

GENERIC_PROMPT = "The most important thing about thinking is"
_MAX_TOKENS = 24
_FRAME = "─" * 100


def greeting(engine: Engine, url: str, has_api_key: bool) -> str:
    """A framed paragraph with a shell command for a completion without and with thinking."""
    limits = engine.setup.limits
    command = curl_command(url, example_prompt(engine), limits.default_budget, has_api_key)
    return (
        f"{_FRAME}\n{engine.model_names[0]} is served at {url} ({thinking(limits)}). "
        f"{cache(engine.cached_tokens, engine.cache_bytes, engine.replicas)}\n"
        "Open that in a browser, or ask here, without and with thinking:\n\n"
        f"{command}\n{_FRAME}"
    )


def cache(tokens: int, num_bytes: int | None, replicas: int = 1) -> str:
    """What the KV cache holds, and takes, where that is known beforehand."""
    holder = "Its KV cache holds" if replicas == 1 else f"The KV caches of {replicas} replicas hold"
    option = "--kv-cache-memory-bytes" + (" for each" if replicas > 1 else "")
    size = f" ({num_bytes / (1 << 30):.1f} GiB, {option})" if num_bytes else ""
    return f"{holder} {tokens:,} tokens{size}."


def thinking(limits: ThoughtLimits) -> str:
    """How requests think that say nothing about it."""
    if not limits.max_budget:
        return "thinking is off"
    where = (
        f"where that may save more than {limits.default_threshold:g} nats"
        if limits.default_threshold
        else "before each"
    )
    return f"thinks {limits.default_budget} tokens {where}, at most {limits.max_budget}"


def curl_command(url: str, prompt: str, budget: int, has_api_key: bool) -> str:
    """One line of shell: the same completion with budget 0 and, if it is not 0, with `budget`."""
    body = json.dumps(
        {"prompt": prompt, "max_tokens": _MAX_TOKENS, "temperature": 0}, ensure_ascii=False
    )
    # The shell inserts the budget between two quoted parts.
    data = shlex.quote(body.removesuffix("}") + ', "thought_budget": ') + "$budget'}'"
    key = '-H "Authorization: Bearer $API_KEY" ' if has_api_key else ""
    budgets = f"0 {budget}" if budget else "0"
    return (
        f"for budget in {budgets}; do curl -s {url}/v1/completions {key}"
        f"-H 'Content-Type: application/json' -d {data}; echo; done"
    )


def example_prompt(engine: Engine) -> str:
    """The checkpoint's own prompt (`quiet_star.example_prompt`), or a generic one."""
    section = quiet_star_section(engine.checkpoint)
    return str(section.get("example_prompt", GENERIC_PROMPT))
