"""The process that compiles the grammars of requests once before the engine does, each in a process
of its own that ends when its time or its memory is used up.

The libraries that compile grammars can neither be limited nor interrupted, a schema of a few
hundred bytes can take hours, and some end the process that they run in.
"""

import json
import logging
import os
import pickle
import re
import resource
import signal
import socket
import sys
from types import SimpleNamespace
from typing import NamedTuple, NoReturn

import numpy as np

from server.engine.child_process import end_with_parent
from server.requests.json_schemas import (
    structural_tag_without_control_characters,
    without_control_characters,
)
from server.vllm_api import (
    SamplingParams,
    StructuredOutputGrammar,
    StructuredOutputManager,
    StructuredOutputRequest,
    StructuredOutputsParams,
    VllmConfig,
)

# What compiling one grammar may take beyond what the process has, in bytes.
_MAX_BYTES = 1 << 30
# Lower than the server and its engine: they answer meanwhile.
_NICENESS = 10
# What xgrammar begins messages with: time, file and line.
_PLACE = re.compile(r"\[[\d:]+\] \S+:\d+: ")
_LONGEST_MESSAGE = 500


class TokenConstraints(NamedTuple):
    """The ids of the tokens that a text may begin with (None = all), and of those that it may not,
    whatever its grammar."""

    allowed: frozenset[int] | None = None
    blocked: frozenset[int] = frozenset()


class GrammarJob(NamedTuple):
    """A grammar as a request has it, beside its other constraints, and the seconds in which it must
    compile."""

    grammar: StructuredOutputsParams
    constraints: TokenConstraints
    seconds: float


class GrammarAnswer(NamedTuple):
    """The grammar as vLLM has validated it, or what is wrong with it."""

    grammar: StructuredOutputsParams | None
    message: str = ""


def compile_grammars(control: socket.socket, config: VllmConfig) -> NoReturn:
    """Serve as the process, forked from the server, until the server closes `control`.

    Each message brings the descriptor of a socket: its process writes its id in a line, reads a
    pickled `GrammarJob`, and answers with a pickled `GrammarAnswer`, or, where its time or its
    memory was not enough, with nothing.
    """
    _leave_the_server(control)
    manager = StructuredOutputManager(config)
    # Here and now rather than in a thread.
    manager._use_async_grammar_compilation = False
    # Prepares the vocabulary, which all grammars need.
    _compile(StructuredOutputsParams(regex="a"), TokenConstraints(), manager)
    while True:
        _, descriptors, *_ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            os._exit(0)
        if os.fork() == 0:
            with socket.socket(fileno=descriptors[0]) as connection:
                _answer(connection, manager)
            os._exit(0)
        os.close(descriptors[0])


def _leave_the_server(control: socket.socket) -> None:
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The server's sockets must close when the server closes them.
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # The libraries' warnings about every grammar; what is wrong with one is in its answer.
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _answer(connection: socket.socket, manager: StructuredOutputManager) -> None:
    with connection.makefile("rwb") as file:
        file.write(b"%d\n" % os.getpid())
        file.flush()
        job: GrammarJob = pickle.load(file)
        _limit(job.seconds)
        file.write(pickle.dumps(_compile(job.grammar, job.constraints, manager)))


def _limit(seconds: float) -> None:
    # Its default is to end the process, whatever that does.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    os.nice(_NICENESS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    size = pages * resource.getpagesize() + _MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _compile(
    grammar: StructuredOutputsParams,
    constraints: TokenConstraints,
    manager: StructuredOutputManager,
) -> GrammarAnswer:
    """Validate and compile a grammar as vLLM's front end and its engine do."""
    params = SamplingParams(structured_outputs=grammar)
    config = manager.vllm_config
    try:
        params._validate_structured_outputs(
            config.model_config, config.structured_outputs_config, manager.tokenizer
        )
        _keep_to_json(params.structured_outputs or grammar)
        compiled = StructuredOutputRequest.from_sampling_params(params)
        assert compiled is not None
        request = SimpleNamespace(
            sampling_params=params, structured_output_request=compiled, request_id=""
        )
        manager.grammar_init(request)  # type: ignore[arg-type]
    except Exception as error:
        return GrammarAnswer(None, _message(error))
    if isinstance(compiled.grammar, Exception):
        return GrammarAnswer(None, _message(compiled.grammar))
    assert compiled.grammar is not None
    first = _first_tokens(compiled.grammar, manager)
    if not first:
        return GrammarAnswer(None, "the grammar allows no text, not even an empty one")
    if constraints.allowed is not None:
        first &= constraints.allowed
    if not first - constraints.blocked:
        return GrammarAnswer(
            None,
            "no token is left to begin with: allowed_token_ids, bad_words and, with min_tokens, "
            "the stop tokens exclude all that the grammar allows",
        )
    return GrammarAnswer(params.structured_outputs)


def _keep_to_json(grammar: StructuredOutputsParams) -> None:
    if grammar._backend != "xgrammar":
        return
    if grammar.json is not None:
        schema = json.loads(grammar.json) if isinstance(grammar.json, str) else grammar.json
        grammar.json = without_control_characters(schema)
    if grammar.structural_tag is not None:
        grammar.structural_tag = structural_tag_without_control_characters(grammar.structural_tag)


def _message(error: Exception) -> str:
    """An error's message in one line, without the places in the libraries' sources."""
    return " ".join(_PLACE.sub("", str(error)).split())[:_LONGEST_MESSAGE]


def _first_tokens(grammar: StructuredOutputGrammar, manager: StructuredOutputManager) -> set[int]:
    """The ids of the tokens with which a text may begin."""
    assert manager.backend is not None
    mask_NW = manager.backend.allocate_token_bitmask(1)
    grammar.fill_bitmask(mask_NW, 0)
    bits_V = np.unpackbits(mask_NW[0].numpy().view(np.uint8), bitorder="little")
    return set(bits_V.nonzero()[0].tolist())
