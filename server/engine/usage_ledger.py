"""What the engine reports of the requests in flight, before any of it has reached a client: how
often they have thought, where a gate decides it and only the engine knows, and when they end.

The engine reports thoughts with its outputs (`quietstar_infer.vllm_plugin.thought_usage`), under a
key of the HTTP request.
"""

import secrets
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from server.admission.cost import Spending
from server.vllm_api import AsyncLLM, EngineCoreOutput, take_usage

# Told what an engine request has spent since its last report.
OnSpending: TypeAlias = Callable[[Spending], None]
# Told how many visible tokens an engine request has sampled, when it ends.
OnEnd: TypeAlias = Callable[[int], None]


class UsageHistory:
    """What one engine request had spent after each of its visible tokens.

    Kept by token, because a response is always a little behind the engine: it may have read fewer
    tokens than the engine has sampled, and none after a stop string.
    """

    def __init__(self) -> None:
        # Where it changed, in order.
        self._changes: list[Spending] = [Spending()]

    @property
    def latest(self) -> Spending:
        return self._changes[-1]

    def add(self, spent: Spending) -> None:
        self._changes.append(spent)

    def after(self, tokens: int) -> Spending:
        """What the first visible tokens have taken."""
        change = bisect_right(self._changes, tokens, key=lambda spent: spent.tokens) - 1
        known = self._changes[change]
        return Spending(tokens, known.thoughts, known.thought_tokens)


class UsageLedger:
    """The usage of requests in flight, by key and by the engine's request id."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[OnSpending, dict[str, UsageHistory]]] = {}
        self._on_end: dict[str, OnEnd] = {}

    def open(self, on_spending: OnSpending) -> str:
        """A new key, to be put into `ThoughtParams.usage_key`, and to be closed in the end."""
        # Unguessable: a client that knew a key could add to another's usage.
        key = secrets.token_urlsafe()
        self._open[key] = on_spending, defaultdict(UsageHistory)
        return key

    def close(self, key: str) -> None:
        """Forget a key; what is still reported under it is dropped."""
        self._open.pop(key, None)

    def histories(self, key: str) -> Mapping[str, UsageHistory]:
        """What was reported under a key, by the engine's request id; empty once it is closed."""
        return self._open[key][1] if key in self._open else {}

    def record(self, key: str, request_id: str, spent: Spending) -> None:
        """Record what an engine request has spent in all."""
        if key not in self._open:
            return
        on_spending, histories = self._open[key]
        history = histories[request_id]
        since = spent - history.latest
        history.add(spent)
        on_spending(since)

    def watch(self, request_id: str, on_end: OnEnd) -> None:
        """Have it told when each of the engine requests (one per choice) ends that are made of a
        request with this id, which must be unique; to be ended with `unwatch`."""
        self._on_end[request_id] = on_end

    def unwatch(self, request_id: str) -> None:
        """Forget a watched request, whose engine requests may still run."""
        self._on_end.pop(request_id, None)

    def end(self, request_id: str, tokens: int) -> None:
        """One of the engine requests of a request has ended, after so many visible tokens."""
        if request_id in self._on_end:
            self._on_end[request_id](tokens)


def collect_usage(client: AsyncLLM, ledger: UsageLedger) -> None:
    """Have all that the engine reports to a client recorded in a ledger.

    vLLM's outputs of the engine reach its front end in `OutputProcessor.process_outputs`, and what
    it makes of them has no field for a usage of ours: so this one method of this one object takes
    it out first. It can go when `RequestOutput` carries fields of a plugin's own. What it makes of
    them waits until a client reads it: ends are noticed here, too.
    """
    processor = client.output_processor
    process = processor.process_outputs

    def process_and_collect(outputs: list[EngineCoreOutput], *args: Any, **kwargs: Any) -> Any:
        states = processor.request_states
        _collect(outputs, states, ledger)
        states_before = {it.request_id: states.get(it.request_id) for it in outputs}
        processed = process(outputs, *args, **kwargs)
        for request_id, state in states_before.items():
            # Ended by the engine, or by a stop string, which vLLM finds here.
            if state is not None and state.detokenizer and request_id not in states:
                ledger.end(state.external_req_id, state.detokenizer.num_output_tokens())
        return processed

    processor.process_outputs = process_and_collect  # type: ignore[method-assign, assignment]


def _collect(
    outputs: Sequence[EngineCoreOutput], states: Mapping[str, Any], ledger: UsageLedger
) -> None:
    for output in outputs:
        # Always taken out: vLLM would pass it on to the response.
        usage = take_usage(output)
        state = states.get(output.request_id)
        if usage is None or state is None:
            continue  # vLLM ignores outputs of requests that have ended, too
        tokens = state.detokenizer.num_output_tokens() + len(output.new_token_ids)
        spent = Spending(tokens, usage.thoughts, usage.thought_tokens)
        ledger.record(usage.key, output.request_id, spent)
