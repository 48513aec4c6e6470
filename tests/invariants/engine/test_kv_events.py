"""What the engine announces of its KV cache (`--kv-events-config`), by which routers find the
beginning of a prompt: blocks of visible text only, although thoughts are written to the same cache.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from vllm.config import KVEventsConfig
from vllm.distributed.kv_events import BlockStored, KVEventBatch

from tests.invariants.engine.test_alone_equals_batched import workload
from tests.support.engine import BLOCK, SCHEDULES, thinking_engine
from tests.support.load import eventually

pytestmark = pytest.mark.slow

END = (-1).to_bytes(8, "big", signed=True)


def announced(address: str) -> Iterator[BlockStored]:
    """All blocks that were announced since the engine started, by vLLM's replay of its events."""
    decoder = msgspec.msgpack.Decoder(KVEventBatch)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        socket.send_multipart([b"", (0).to_bytes(8, "big")])
        while (frames := socket.recv_multipart())[-2] != END:
            for event in decoder.decode(frames[-1]).events:
                if isinstance(event, BlockStored):
                    yield event


def prefixes(address: str) -> set[tuple[int, ...]]:
    """The texts, from their first token, that end with an announced block."""
    text_of: dict[Any, tuple[int, ...]] = {None: ()}
    for event in announced(address):
        text = text_of[event.parent_block_hash]
        assert len(event.token_ids) == BLOCK * len(event.block_hashes)
        for number, block_hash in enumerate(event.block_hashes):
            text += tuple(event.token_ids[number * BLOCK : (number + 1) * BLOCK])
            text_of[block_hash] = text
    return set(text_of.values()) - {()}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_only_visible_text_is_announced(
    schedule: str, random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    events = KVEventsConfig(
        enable_kv_cache_events=True,
        publisher="zmq",
        endpoint=f"ipc://{tmp_path}/events",
        replay_endpoint=f"ipc://{tmp_path}/replay",
    )
    asks = workload(3, shared_prefix=40, thresholds=(0.0, 0.0, 0.05))
    with thinking_engine(
        random_checkpoint("llama"), **SCHEDULES[schedule], kv_events_config=events
    ) as engine:
        texts = [
            (*ask.prompt, *answer.token_ids)
            for ask, answers in zip(asks, engine.run(asks), strict=True)
            for answer in answers
        ]
        # The last token of a text is sampled, and not fed unless another follows.
        whole = {text[:end] for text in texts for end in range(BLOCK, len(text), BLOCK)}
        known = whole | {text for text in texts if len(text) % BLOCK == 0}
        eventually(lambda: prefixes(events.replay_endpoint or "") >= whole)
        assert prefixes(events.replay_endpoint or "") <= known
    assert len(whole) > 60
