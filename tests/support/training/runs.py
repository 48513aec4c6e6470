"""Small training runs: a random model, a text of its own words, a recipe."""

import json
import random
from pathlib import Path
from typing import Any

from tests.support.checkpoints import write_random_checkpoint
from training.trainer.recipe import Recipe, make_recipe


def write_text(path: Path, documents: int = 40, words: int = 24) -> Path:
    """A JSONL file of documents in which some words follow others more often than by chance."""
    rng = random.Random(0)
    with path.open("w") as lines:
        for _ in range(documents):
            word, text = rng.randrange(8, 60), []
            for _ in range(words):
                text.append(f"t{word}")
                word = rng.randrange(8, 60) if rng.random() < 0.2 else 8 + (word * 5) % 52
            lines.write(json.dumps({"text": " ".join(text)}) + "\n")
    return path


def small_recipe(folder: Path, preset: str = "recommended", **sections: dict[str, Any]) -> Recipe:
    """A run of four steps on four sequences of sixteen tokens; `sections` overrule it."""
    model = folder / "start"
    if not model.exists():
        write_random_checkpoint(model, "mistral", num_attention_heads=2, hidden_size=64)
        write_text(folder / "text.jsonl")
    content: dict[str, Any] = {
        "model": {"source": str(model)},
        "preset": preset,
        "data": {"path": str(folder / "text.jsonl"), "eval_documents": 8},
        "thinking": {"budget": 2},
        "optimisation": {
            "sequences_per_step": 4,
            "window": 16,
            "warmup_steps": 1,
            "decay_steps": 12,  # as in a longer run, of which this may be the beginning
        },
        "run": {
            "output": str(folder / "run"),
            "steps": 4,
            "sequences_per_device": 2,
            "eval_every": 2,
        },
    }
    for section, values in sections.items():
        content[section] = {**content[section], **values}
    return make_recipe(content, "test")
