"""What every written checkpoint of the official layout has beside its weights.

Names and shapes of the tensors are `quietstar_infer.checkpoint`'s.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import EMBEDDING_SCALE
from training.output import write_json

OFFICIAL_FLAGS: Mapping[str, bool] = {
    "merged_lm_and_talk_heads": False,
    "merged_lm_and_think_heads": True,
    "merged_talk_heads": True,
    "use_complex_talk_head": True,
    "use_complex_think_head": False,
    "use_concat_talk_head": True,
    "use_shallow_talk": False,
    "use_shallow_think": True,
    "use_weighted_talk_head": True,
}
"""The flags of the heads in the published checkpoint's configuration."""


@dataclass(frozen=True)
class ThoughtFacts:
    """The `quiet_star` section of `config.json`.

    `example_prompt` is what a server suggests for a first request.
    """

    default_thought_budget: int
    trained_on: str
    embedding_mode: str = "learned"
    embedding_scale: float = EMBEDDING_SCALE
    example_prompt: str | None = None

    def section(self) -> dict[str, Any]:
        """The section as it is written: unknown facts are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def max_thoughts(self) -> int:
        """The official configuration's: the budget, 3 more passes, the tokens ahead (1), and 1."""
        return self.default_thought_budget + 5


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer under the class name that old and new transformers know."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for where_from in ("is_local", "local_files_only"):
        content.pop(where_from, None)
    write_json(path, content | {"tokenizer_class": "PreTrainedTokenizerFast"})
