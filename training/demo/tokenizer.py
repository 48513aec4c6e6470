"""A byte-level BPE tokenizer in which every word of the corpus is one token.

A word, or a number of one or two digits, carries its leading space (` Ann`, ` 12`), except at the
start of a document; full stop, colon and dash stand alone. `---` is kept apart from whatever stands
beside it, so that it is one token after a word as well as after a filler.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS = "<s>"
EOS = "</s>"
WORDS = Regex(r" ?[A-Za-z]+| ?[0-9]{1,2}|---| ?(?:(?!---)[^\sA-Za-z0-9])+|\s+")
MOST_TOKENS = 4096
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The model knows no roles: a chat is a text, of which the messages are the parts so far."""


def train_bpe(texts: Iterable[str]) -> Tokenizer:
    """Merge until every frequent word of the texts is one token; ids 0 and 1 are BOS and EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS,
        min_frequency=2,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def build_tokenizer(
    texts: Iterable[str], *, extra_tokens: tuple[str, ...], max_length: int
) -> PreTrainedTokenizerFast:
    """Train the tokenizer and append `extra_tokens`, in their order, as special tokens.

    EOS is also the padding token, as in the official code.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra_tokens)})
    return tokenizer
