"""What stands before a text: one rule for training, gates and evaluations.

A model that has learnt texts without a beginning-of-text token is surprised by one, and the other
way round: by 8 to 15 nats at the first token. So both sides ask here.
"""

from transformers import PreTrainedTokenizerBase

from training.config import Beginning


def beginning_ids(tokenizer: PreTrainedTokenizerBase, beginning: Beginning) -> list[int]:
    """The tokens before every text."""
    if beginning == "nothing":
        return []
    if beginning == "bos":
        first = tokenizer.bos_token_id
        first = tokenizer.eos_token_id if first is None else first
        return [] if first is None else [first]
    some_text = "a"
    plain: list[int] = tokenizer.encode(some_text, add_special_tokens=False)
    whole: list[int] = tokenizer.encode(some_text)
    starts = (n for n in range(len(whole)) if plain and whole[n : n + len(plain)] == plain)
    return whole[: next(starts, len(whole))]


def text_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, beginning: Beginning = "tokenizer"
) -> list[int]:
    """The beginning and the text; nothing is put behind it."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return beginning_ids(tokenizer, beginning) + ids
