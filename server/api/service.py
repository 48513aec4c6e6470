"""What all endpoints of a server share."""

from argparse import Namespace

from server.admission.options import admission_limits
from server.admission.queue import Admission
from server.api.scoring import PromptScorer
from server.api.tokenization import TokenizerQueue
from server.api.usage import usage_style
from server.engine.engine import Engine
from server.engine.serving_parts import ServingParts
from server.requests.validation import ServedModel


class Service:
    """The engine, the queue before it, and the limits."""

    def __init__(self, engine: Engine, args: Namespace) -> None:
        self.engine = engine
        # Requests that are being answered or wait for it.
        self.num_in_flight = 0
        self.parts = ServingParts(engine, args)
        # The other half of the batch is left to requests that do not score.
        self.scorer = PromptScorer(engine, max_rows=max(1, engine.max_rows // 2))
        self.admission = Admission(admission_limits(args), engine.prompt_chunk)
        self.tokenizer_queue = TokenizerQueue(engine.context_length)
        self.allow_return = bool(args.allow_return_thoughts)
        self.usage_style = usage_style(args)
        self.request_timeout = float(args.request_timeout)
        self.model = ServedModel(
            engine.context_length,
            engine.vocab_size,
            engine.setup.config.meta_token_ids,
            engine.has_priorities,
        )
