"""The ledger, filled by vLLM's own front end of an engine with made-up outputs of the engine."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import AutoTokenizer
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from quietstar_infer.vllm_plugin.thought_usage import ThoughtUsage, attach_usage
from server.admission.cost import Spending
from server.engine.usage_ledger import UsageLedger, collect_usage
from server.vllm_api import AsyncLLM
from tests.support.servers import GOLDEN


class FrontEnd:
    """vLLM's output processor, whose usage is collected."""

    def __init__(self) -> None:
        tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "engine_greedy_n4" / "checkpoint")
        self.processor = OutputProcessor(cast(Any, tokenizer), log_stats=False)
        self.ledger = UsageLedger()
        self.reported: list[Spending] = []
        self.key = self.ledger.open(self.reported.append)
        collect_usage(cast(AsyncLLM, SimpleNamespace(output_processor=self.processor)), self.ledger)

    def add(self, request_id: str, stop: list[str] | None = None) -> RequestOutputCollector:
        queue = RequestOutputCollector(RequestOutputKind.DELTA, request_id)
        params = SamplingParams(stop=stop, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(
            request_id=request_id,
            external_req_id=request_id,
            prompt_token_ids=[1, 5],
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self.processor.add_request(request, None, None, 0, queue)
        return queue

    def receive(
        self,
        request_id: str,
        tokens: list[int],
        usage: tuple[int, int] | None,
        key: str | None = None,
        finish_reason: FinishReason | None = None,
    ) -> list[str]:
        """An output of the engine, as its process sends it; returns the requests to abort."""
        output = EngineCoreOutput(request_id, tokens, finish_reason=finish_reason)
        if usage is not None:
            attach_usage(output, ThoughtUsage(key or self.key, *usage))
        sent = MsgpackEncoder().encode(EngineCoreOutputs(outputs=[output]))
        received = MsgpackDecoder(EngineCoreOutputs).decode(sent)
        return self.processor.process_outputs(received.outputs).reqs_to_abort

    def spent(self, request_id: str, tokens: int) -> Spending:
        return self.ledger.histories(self.key)[request_id].after(tokens)


@pytest.fixture
def front_end() -> FrontEnd:
    return FrontEnd()


def taken(queue: RequestOutputCollector) -> RequestOutput:
    output = queue.get_nowait()
    assert isinstance(output, RequestOutput)
    return output


def test_usage_is_known_by_token_and_request(front_end: FrontEnd) -> None:
    for request_id in ("0_a", "1_a"):
        front_end.add(request_id)
    front_end.receive("0_a", [5], None)
    front_end.receive("0_a", [6], (1, 4))
    front_end.receive("1_a", [7], (1, 2))
    front_end.receive("0_a", [7], None)
    front_end.receive("0_a", [8], (2, 8), finish_reason=FinishReason.LENGTH)
    told = [front_end.spent("0_a", tokens) for tokens in range(5)]
    assert [(spent.thoughts, spent.thought_tokens) for spent in told] == [
        *((0, 0), (0, 0), (1, 4), (1, 4), (2, 8)),
    ]
    assert front_end.spent("1_a", 1) == Spending(1, 1, 2)
    assert front_end.reported == [Spending(2, 1, 4), Spending(1, 1, 2), Spending(2, 1, 4)]


def test_vllm_does_not_see_it(front_end: FrontEnd) -> None:
    queue = front_end.add("a")
    front_end.receive("a", [5], (1, 4), finish_reason=FinishReason.LENGTH)
    output = taken(queue)
    assert output.kv_transfer_params is None
    assert [choice.token_ids for choice in output.outputs] == [[5]]
    assert output.finished


def test_after_a_stop_string_nothing_counts(front_end: FrontEnd) -> None:
    """vLLM finds it in the front end; the engine samples on until it is told."""
    queue = front_end.add("a", stop=["t12"])
    front_end.receive("a", [7], (1, 4))
    to_abort: list[str] = []
    for token in range(8, 20):
        to_abort = front_end.receive("a", [token], (token - 6, 4 * (token - 6)))
        if to_abort:
            break
    assert to_abort == ["a"]
    front_end.receive("a", [9], (99, 99))
    output = taken(queue)
    (choice,) = output.outputs
    thoughts = len(choice.token_ids)
    assert choice.finish_reason == "stop"
    assert front_end.spent("a", thoughts) == Spending(thoughts, thoughts, 4 * thoughts)
    assert front_end.ledger.histories(front_end.key)["a"].latest.thoughts == thoughts


def test_an_aborted_request_is_ignored(front_end: FrontEnd) -> None:
    front_end.add("a")
    front_end.receive("a", [5], (1, 4))
    front_end.processor.abort_requests(["a"], internal=True)
    front_end.receive("a", [6], (2, 8))
    assert front_end.reported == [Spending(1, 1, 4)]


def test_nothing_is_kept_of_closed_or_unknown_keys(front_end: FrontEnd) -> None:
    queue = front_end.add("a")
    front_end.receive("a", [5], (1, 4), key="made up by a client")
    front_end.ledger.close(front_end.key)
    front_end.ledger.close(front_end.key)
    front_end.receive("a", [6], (2, 8))
    assert not front_end.reported
    assert not front_end.ledger.histories(front_end.key)
    assert not front_end.ledger._open
    assert taken(queue).kv_transfer_params is None


def test_keys_cannot_be_guessed(front_end: FrontEnd) -> None:
    keys = {front_end.ledger.open(front_end.reported.append) for _ in range(10)}
    assert len(keys) == 10
    assert all(len(key) > 40 for key in keys)


def test_ends_are_reported_whether_or_not_anybody_reads(front_end: FrontEnd) -> None:
    ended: list[int] = []
    for name in ("stop", "length", "aborted", "unwatched"):
        front_end.add(name, stop=["t11"] if name == "stop" else None)
        front_end.ledger.watch(name, ended.append)
    front_end.ledger.unwatch("unwatched")
    front_end.receive("length", [5, 6], None)
    assert ended == []
    front_end.receive("length", [8], None, finish_reason=FinishReason.LENGTH)
    front_end.receive("unwatched", [8], None, finish_reason=FinishReason.LENGTH)
    front_end.receive("stop", [11], None)
    front_end.processor.abort_requests(["aborted"], internal=True)
    front_end.receive("aborted", [8], None, finish_reason=FinishReason.ABORT)
    assert ended == [3, 1]
