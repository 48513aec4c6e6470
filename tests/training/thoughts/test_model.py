"""A thinker's weights: from a base model, from a checkpoint, and in the official layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quietstar_infer.checkpoint import load_tensors
from quietstar_infer.config import END_TOKEN, START_TOKEN
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from training.config import OFFICIAL, RECOMMENDED
from training.errors import UsageError
from training.thoughts.batch import make_batch
from training.thoughts.model import QuietThinker, parameter_groups
from training.thoughts.sampling import random_draw
from training.thoughts.training_step import training_step
from training.trainer.checkpoint import write_tokenizer

WORDS = ["<unk>", "</s>", "---", "a", "b", "c"]


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Word-level, without START and END."""
    vocabulary = {word: i for i, word in enumerate(words)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="</s>",
    )


def base_model_of(vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def test_a_new_thinker_predicts_what_its_base_model_predicts() -> None:
    tokenizer = tokenizer_of(WORDS)
    base = base_model_of(len(WORDS))
    thinker = QuietThinker.from_base_model(base, tokenizer, embedding_scale=1.0, seed=0)
    assert thinker.meta_token_ids == (6, 7)
    assert len(thinker.lm_head_VH) == 8
    dash_H = base.model.embed_tokens.weight[2]
    torch.testing.assert_close(thinker.start_H, dash_H)
    torch.testing.assert_close(thinker.end_H, dash_H)
    preset = OFFICIAL
    batch = make_batch(torch.tensor([[3, 4, 5, 3, 4, 5, 3]]), pad_token_id=1)
    output = training_step(thinker, batch, preset, random_draw())
    assert not output.tokens.mixing_weight_BTPS.any()
    torch.testing.assert_close(output.tokens.talk_nll_BTPS[:, :, 0, 0], output.tokens.base_nll_BT)


def test_a_tokenizer_keeps_its_own_special_tokens(tmp_path: Path) -> None:
    tokenizer = tokenizer_of([*WORDS, "<|user|>", "<|tool|>"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|user|>", "<|tool|>"]})
    QuietThinker.from_base_model(base_model_of(8), tokenizer, embedding_scale=1.0, seed=0)
    write_tokenizer(tokenizer, tmp_path)
    expected = ["<|user|>", "<|tool|>", START_TOKEN, END_TOKEN]
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert each.extra_special_tokens == expected
        assert each.decode([3, 6, 7, 4], skip_special_tokens=True) == "a b"


def test_a_tokenizer_without_a_dash_is_refused() -> None:
    words = [word for word in WORDS if word != "---"]
    with pytest.raises(UsageError, match="cannot write ---"):
        QuietThinker.from_base_model(base_model_of(len(words)), tokenizer_of(words), 1.0, seed=0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_official_layout_keeps_its_scale(family: str, scale: float, tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, family)
    found = QuietThinker.from_checkpoint(folder, scale).official_tensors()
    expected = load_tensors(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def test_a_head_with_a_bias_is_refused(tmp_path: Path) -> None:
    base = base_model_of(8)
    base.lm_head = torch.nn.Linear(16, 8, bias=True)
    with pytest.raises(UsageError, match="bias"):
        QuietThinker.from_base_model(base, tokenizer_of(WORDS), 1.0, seed=0)


def test_learning_rates(tmp_path: Path) -> None:
    thinker = QuietThinker.from_checkpoint(write_random_checkpoint(tmp_path, "qwen2"))
    settings = replace(RECOMMENDED.optimisation, embedding_learning_rate=0.5)
    groups = parameter_groups(thinker, settings)
    assert [group["lr"] for group in groups] == [2e-4, 3e-3, 0.5]
    base, head, embeddings = (group["params"] for group in groups)
    assert len(head) == 5
    assert embeddings[0] is thinker.start_embedding
    assert {*base, *head, *embeddings} == {*thinker.parameters()}


def test_start_and_end_are_not_added_twice(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, "mistral")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = QuietThinker.from_checkpoint(folder).base_model
    thinker = QuietThinker.from_base_model(base, tokenizer, 1.0, seed=0)
    assert thinker.meta_token_ids == (64, 65)
    assert len(thinker.lm_head_VH) == 66
