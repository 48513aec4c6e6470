"""What thoughts are worth, measured: the labels of a thought gate.

At every position of some documents thoughts are sampled as the server samples them, with the
thinker as it is; the label is the KL divergence of the mixed from the base prediction, which for a
calibrated thinker is the expected gain, and knows no noise of the token that happens to follow.

Shapes: B documents, T tokens, C positions of a run, H hidden, V vocabulary, K budgets; N positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from tqdm import tqdm  # type: ignore[import-untyped]

from quietstar_infer.gate import prediction_entropy
from training.errors import UsageError
from training.kernels.thought_attention import TextAttention
from training.thoughts.batch import check_window
from training.thoughts.decode import ThoughtSettings, decode_thoughts, seeded_tokens
from training.thoughts.model import QuietThinker

TOKENS_AT_ONCE = {"cpu": 2**12, "cuda": 2**15}
"""Tokens of padded texts, and of thoughts, whose keys and values are kept at a time."""
_VERY_NEGATIVE = -1e9  # stands for -inf, which times a probability of 0 is not a number


@dataclass(frozen=True)
class LabelledPositions:
    """Positions of documents that have a next token, on the CPU in float32; those of a document
    are in its order.

    `base_NH`: base hidden states; `entropy_N`: of the base predictions; `gain_NK`: the labels, in
    nats; `base_nll_N`, `nll_NK`: the next token's losses without and with a thought; `document_N`:
    the document's number.
    """

    base_NH: Tensor
    entropy_N: Tensor
    gain_NK: Tensor
    base_nll_N: Tensor
    nll_NK: Tensor
    document_N: Tensor

    def __len__(self) -> int:
        return len(self.base_NH)

    def of(self, chosen_N: Tensor) -> "LabelledPositions":
        """Those of the positions that a boolean mask chooses."""
        return LabelledPositions(*(getattr(self, f.name)[chosen_N] for f in fields(self)))


@torch.inference_mode()
def label_positions(
    thinker: QuietThinker, documents: Sequence[list[int]], thoughts: ThoughtSettings
) -> LabelledPositions:
    """Think at every position of the documents that has a next token, in each of the budgets.

    The noise of the thoughts is that of a request with the seed `thoughts.seed` + the document's
    number. Raises `UsageError` where document and thought exceed the model's positions.
    """
    _check_room(thinker, max(map(len, documents)), thoughts.longest)
    parts = []
    total = sum(len(ids) - 1 for ids in documents)
    with tqdm(total=total, desc="thoughts", unit="position", smoothing=0) as bar:
        for numbers in _batches(documents, TOKENS_AT_ONCE[thinker.lm_head_VH.device.type]):
            for part in _label_batch(thinker, documents, numbers, thoughts):
                parts.append(part)
                bar.update(len(part))
    together = zip(*(vars(part).values() for part in parts), strict=True)
    return LabelledPositions(*(torch.cat(tensors) for tensors in together))


def _check_room(thinker: QuietThinker, longest: int, budget: int) -> None:
    config = thinker.base_model.config.get_text_config().to_dict()
    check_window(longest, 0, config.get("sliding_window"))
    room = config.get("max_position_embeddings")
    needed = longest + budget + 1
    if room is not None and needed > room:
        raise UsageError(
            f"a document of {longest} tokens with thoughts of {budget} needs {needed} positions, "
            f"the model has {room}; use smaller budgets, or fewer document_tokens"
        )


def _batches(documents: Sequence[list[int]], most: int) -> Iterator[list[int]]:
    """Numbers of documents that are padded together, of similar length and few tokens in all."""
    batch: list[int] = []
    for number in sorted(range(len(documents)), key=lambda n: len(documents[n])):
        if batch and (len(batch) + 1) * len(documents[number]) > most:
            yield batch
            batch = []
        batch.append(number)
    yield batch


def _label_batch(
    thinker: QuietThinker,
    documents: Sequence[list[int]],
    numbers: Sequence[int],
    thoughts: ThoughtSettings,
) -> Iterator[LabelledPositions]:
    device = thinker.lm_head_VH.device
    rows = [documents[number] for number in numbers]
    longest = len(rows[-1])
    # Padding is on the right, where no real token attends to it.
    ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    length_B1 = torch.tensor([[len(row)] for row in rows], device=device)
    text = TextAttention(needs_grad=False)
    base_BTH = thinker.text_states(text, ids_BT)
    size = max(1, TOKENS_AT_ONCE[device.type] // (len(rows) * (thoughts.longest + 2)))
    for start in range(0, longest - 1, size):
        run = range(start, min(start + size, longest - 1))
        row_N, column_N = (torch.tensor(run, device=device)[None] < length_B1 - 1).nonzero().T
        base_NH = base_BTH[row_N, column_N + start]
        seeds = [thoughts.seed + number for number in numbers]
        choose = seeded_tokens(thinker, seeds, run, thoughts.temperature)
        decoded = decode_thoughts(thinker, text, len(rows), run, thoughts.budgets, choose)
        mixed = [thinker.mix(base_NH, t.hidden_BCH[row_N, column_N]).hidden for t in decoded]
        number_N = torch.tensor(numbers, device=device)[row_N]
        next_N = ids_BT[row_N, column_N + start + 1]
        yield _labels(thinker, base_NH, mixed, next_N, number_N)


def _labels(
    thinker: QuietThinker,
    base_NH: Tensor,
    mixed: Sequence[Tensor],
    next_N: Tensor,
    number_N: Tensor,
) -> LabelledPositions:
    """`mixed` has the mixed hidden states (N, H) of each budget."""
    entropy_N, base_nll_N = (base_NH.new_empty(len(base_NH), dtype=torch.float32) for _ in "12")
    gain_KN, nll_KN = (entropy_N.new_empty(len(mixed), len(base_NH)) for _ in "12")
    for rows, logits in _together(thinker, [base_NH, *mixed]):  # by base, then by budget
        entropy_N[rows] = prediction_entropy(logits[0])
        logprobs = [x.log_softmax(dim=-1).clamp(min=_VERY_NEGATIVE) for x in logits]
        base_NV, mixed_NV = logprobs[0], logprobs[1:]
        base_nll_N[rows] = _nll(base_NV, next_N[rows])
        for k, each_NV in enumerate(mixed_NV):
            divergence_NV = kl_div(base_NV, each_NV, reduction="none", log_target=True)
            gain_KN[k, rows] = divergence_NV.sum(dim=-1).clamp(min=0)  # below 0 by rounding only
            nll_KN[k, rows] = _nll(each_NV, next_N[rows])
    tensors = (base_NH.float(), entropy_N, gain_KN.T, base_nll_N, nll_KN.T, number_N)
    return LabelledPositions(*(tensor.cpu() for tensor in tensors))


def _together(
    thinker: QuietThinker, hidden: Sequence[Tensor]
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Runs of rows, and their logits by each of several tensors of hidden states."""
    for several in zip(*(thinker.logits(hidden_NH) for hidden_NH in hidden), strict=True):
        yield several[0][0], [logits_NV.float() for _, logits_NV in several]


def _nll(log_probability_NV: Tensor, token_N: Tensor) -> Tensor:
    return -log_probability_NV.gather(1, token_N[:, None])[:, 0]
