"""What thoughts gain on text beyond what training alone does, token by token against a control.

All models must have read the same tokens. The hardest tenth of the tokens is chosen by the base
model, before any training: chosen by one of the compared models, its chance errors would count
against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError
from training.evaluations.estimates import mean
from training.evaluations.summary import Items
from training.evaluations.sweep import Cell

HARDEST = 0.1
_Losses: TypeAlias = NDArray[np.float64]


def beside_control(records: Mapping[str, Items], cells: Sequence[Cell]) -> dict[str, Any]:
    """By set of tokens (all, and with a base model the hardest tenth): their number, what training
    alone gained over the base model (None without one), and what each cell of the thinker gained
    beyond the control, with intervals over documents. Raises `UsageError` where the models'
    tokenizers differ.
    """
    control = _of(records["control"], "0")
    base = _of(records["base"], "0") if "base" in records else None
    thinker = {cell.key: _of(records["thinker"], cell.key) for cell in cells}
    compared = [*thinker.values(), *([] if base is None else [base])]
    if any(list(map(len, losses)) != list(map(len, control)) for losses in compared):
        raise UsageError("--control and --base must have the tokenizer of MODEL")
    chosen = {"all": [np.ones(len(losses), bool) for losses in control]}
    if base is not None:
        limit = float(np.quantile(np.concatenate(base), 1 - HARDEST))
        chosen["hardest tenth for the base model"] = [losses >= limit for losses in base]
    return {
        name: {
            "tokens": int(sum(map(np.sum, masks))),
            "alone": None if base is None else _gain(base, control, masks),
            "thoughts": {key: _gain(control, losses, masks) for key, losses in thinker.items()},
        }
        for name, masks in chosen.items()
    }


def _of(items: Items, key: str) -> list[_Losses]:
    return [np.asarray(item["outcomes"][key]["nll"], float) for item in items]


def _gain(
    before: Sequence[_Losses], after: Sequence[_Losses], masks: Sequence[NDArray[np.bool_]]
) -> dict[str, float]:
    """Nats per token, a mean over tokens with the bootstrap over documents."""
    parts = [(b, a, m) for b, a, m in zip(before, after, masks, strict=True) if m.any()]
    sums = [float((b - a)[m].sum()) for b, a, m in parts]
    return asdict(mean(sums, [int(m.sum()) for _, _, m in parts]))
