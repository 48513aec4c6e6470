"""A batch of texts, and its targets.

Padding must be on the right: then no real token attends to it, positions are those of the unpadded
text, and neither base model nor thoughts need a mask for it.

Shapes: B sequences, T text positions, S true tokens ahead.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from training.errors import UsageError

IGNORED = -100
"""The label of a token that is no target, as in transformers."""


class Batch(NamedTuple):
    """Token ids and labels, (B, T) each; a label is its token or `IGNORED`.

    Where a sequence has several documents, which do not see each other, `document_start_BT` is the
    index in the sequence of the first token of each token's document.
    """

    input_ids_BT: Tensor
    labels_BT: Tensor
    pad_token_id: int
    document_start_BT: Tensor | None = None


class Ahead(NamedTuple):
    """What follows each position: entry [b, i, s] of (B, T, S) belongs to token i + 1 + s.

    `ids` past the end of the text are the pad id; `real` is False there, for ignored labels and for
    tokens of another document.
    """

    ids_BTS: Tensor
    real_BTS: Tensor


def make_batch(
    input_ids: Tensor,
    pad_token_id: int,
    labels: Tensor | None = None,
    attention_mask: Tensor | None = None,
    document_start: Tensor | None = None,
) -> Batch:
    """A checked batch; all arguments are (B, T), `document_start` as in `Batch`.

    Without a mask the run of pad ids at the end of a sequence is its padding (a pad id inside it is
    a token like any other, also where pad is end-of-text). Labels default to the ids. Padding is
    never a target. Raises `UsageError` for padding on the left or inside, for labels that are other
    tokens than the ids, and for a batch without a single target.
    """
    if attention_mask is None:
        attention_mask = _until_padding(input_ids, pad_token_id)
    real_BT = attention_mask.bool()
    if (real_BT[:, 1:] & ~real_BT[:, :-1]).any():
        raise UsageError("padding must stand on the right; set padding_side='right'")
    labels_BT = (input_ids if labels is None else labels).masked_fill(~real_BT, IGNORED)
    if ((labels_BT != input_ids) & (labels_BT != IGNORED)).any():
        raise UsageError(f"a label is neither its token nor {IGNORED}; labels must not be shifted")
    if not (labels_BT[:, 1:] != IGNORED).any():
        raise UsageError("a batch has nothing to predict: every label is padding or ignored")
    return Batch(input_ids, labels_BT, pad_token_id, document_start)


def check_window(positions: int, ahead: int, sliding_window: int | None) -> None:
    """Raise `UsageError` where a text of so many positions is too short for looking so many tokens
    ahead, or longer than the base model's sliding window, which the thoughts do not model.
    """
    if positions < ahead + 2:
        raise UsageError(
            f"sequences of {positions} tokens are too short to look {ahead} tokens ahead: "
            f"at least {ahead + 2} are needed"
        )
    if sliding_window is not None and positions > sliding_window:
        raise UsageError(
            f"sequences of {positions} tokens exceed the base model's sliding window of "
            f"{sliding_window}; use shorter ones"
        )


def look_ahead(batch: Batch, ahead: int) -> Ahead:
    """The next `ahead` tokens of every position."""
    real_BTS = _following(batch.labels_BT, ahead, IGNORED) != IGNORED
    start_BT = batch.document_start_BT
    if start_BT is not None:
        real_BTS &= _following(start_BT, ahead, -1) == start_BT[..., None]
    return Ahead(_following(batch.input_ids_BT, ahead, batch.pad_token_id), real_BTS)


def _following(ids_BT: Tensor, ahead: int, fill: int) -> Tensor:
    return F.pad(ids_BT, (0, ahead), value=fill).unfold(1, ahead, 1)[:, 1:]


def _until_padding(ids_BT: Tensor, pad_token_id: int) -> Tensor:
    """True up to the last token that is no pad."""
    later_BT = (ids_BT != pad_token_id).flip(1).long().cumsum(1).flip(1)
    return later_BT > 0
