"""One measurement of a training step, in a process of its own.

`python -m benchmarks.training.measurement JSON` is how `step_cost` starts it.

The model is random, a Mistral of the shape for which the official code was measured; its mixing
head is open, so that thoughts differ in their reward and half of them have a policy gradient.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from transformers import MistralConfig, MistralForCausalLM

from training.config import OFFICIAL, Recompute, Thinking
from training.kernels.activation_checkpointing import checkpoint_activations, tokens_per_pass
from training.thoughts.batch import make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.reference_step import reference_step
from training.thoughts.sampling import random_draw
from training.thoughts.training_step import passes_for, training_step
from training.thoughts.weights import initial_thought_tensors

StepVersion = Literal["fast", "keeping all", "recomputing layers", "dense"]
RECOMPUTED: dict[StepVersion, Recompute] = {
    "fast": "mlp",
    "keeping all": "nothing",
    "recomputing layers": "layer",
}


@dataclass(frozen=True)
class StepTask:
    """What to measure; `budget` 9 is the official 12 passes."""

    version: StepVersion
    vocab_size: int
    positions: int
    budget: int = 9
    ahead: int = 4
    per_position: int = 2
    repeats: int = 3


class MeasuredStep(NamedTuple):
    """CPU seconds of a step, forward and backward, the least of the repeats; MiB by which the
    process's peak memory grew over all of them.
    """

    cpu_seconds: float
    peak_mib: float


def random_thinker(vocab_size: int) -> QuietThinker:
    """H = 256, 4 layers, 8/4 heads, intermediate 512, float32."""
    torch.manual_seed(0)
    base = MistralForCausalLM(
        MistralConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            sliding_window=None,
        )
    )
    table_VH = base.model.embed_tokens.weight.detach()
    tensors = initial_thought_tensors(table_VH, dash=3, seed=0)
    tensors["talk_head.0.4.weight"].normal_(std=0.02)
    return QuietThinker(
        base, tensors, (vocab_size - 2, vocab_size - 1), OFFICIAL.optimisation.embedding_scale
    ).train()


def step_of(task: StepTask, thinker: QuietThinker) -> Callable[[], StepOutput]:
    """A forward pass of a training step with the official objective; batch 1."""
    ids_BT = torch.randint(4, task.vocab_size - 2, (1, task.positions))
    batch = make_batch(ids_BT, pad_token_id=0)
    preset = replace(OFFICIAL, thinking=Thinking(task.budget, task.ahead, task.per_position))
    if task.version == "dense":
        return lambda: reference_step(thinker, batch, preset, random_draw())
    checkpoint_activations(thinker.base_model, RECOMPUTED[task.version])
    passes = passes_for(batch, preset.thinking, tokens_per_pass(thinker.base_model))
    return lambda: training_step(thinker, batch, preset, random_draw(), passes=passes)


def peak_mib() -> float:
    """Peak memory of this process so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure_step(task: StepTask) -> MeasuredStep:
    """Run the steps on one thread."""
    torch.set_num_threads(1)
    thinker = random_thinker(task.vocab_size)
    step = step_of(task, thinker)
    before = peak_mib()
    seconds = []
    for _ in range(task.repeats):
        start = time.process_time()
        step().loss.backward()
        seconds.append(time.process_time() - start)
        thinker.zero_grad()
    return MeasuredStep(min(seconds), peak_mib() - before)


if __name__ == "__main__":
    print(json.dumps(measure_step(StepTask(**json.loads(sys.argv[1])))._asdict()))
