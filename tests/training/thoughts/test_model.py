"""A thinker's weights: made from a trunk, read from a checkpoint, and in the official layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quietstar_infer.checkpoint import load_tensors
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from training.config import OFFICIAL, RECOMMENDED, Thinking
from training.errors import UsageError
from training.thoughts.batch import make_batch
from training.thoughts.model import QuietThinker, parameter_groups
from training.thoughts.sampling import random_draw
from training.thoughts.training_step import training_step

WORDS = ["<unk>", "</s>", "---", "a", "b", "c"]


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Word-level, without START and END."""
    vocabulary = {word: i for i, word in enumerate(words)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="</s>",
    )


def trunk_of(vocab_size: int) -> LlamaForCausalLM:
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


def test_a_trunk_becomes_a_thinker_that_is_still_its_trunk() -> None:
    tokenizer = tokenizer_of(WORDS)
    trunk = trunk_of(len(WORDS))
    thinker = QuietThinker.from_base_model(trunk, tokenizer, embedding_scale=1.0, seed=0)
    assert thinker.meta_token_ids == (6, 7)
    assert len(thinker.lm_head_VH) == 8
    dash_H = trunk.model.embed_tokens.weight[2]
    torch.testing.assert_close(thinker.start_H, dash_H)
    torch.testing.assert_close(thinker.end_H, dash_H)
    preset = OFFICIAL
    batch = make_batch(torch.tensor([[3, 4, 5, 3, 4, 5, 3]]), pad_token_id=1)
    output = training_step(thinker, batch, preset, random_draw())
    assert not output.tokens.mixing_weight_BTPS.any()
    torch.testing.assert_close(output.tokens.talk_nll_BTPS[:, :, 0, 0], output.tokens.base_nll_BT)


def test_a_tokenizer_without_a_dash_is_refused() -> None:
    words = [word for word in WORDS if word != "---"]
    with pytest.raises(UsageError, match="cannot write ---"):
        QuietThinker.from_base_model(trunk_of(len(words)), tokenizer_of(words), 1.0, seed=0)


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
    trunk = trunk_of(8)
    trunk.lm_head = torch.nn.Linear(16, 8, bias=True)
    with pytest.raises(UsageError, match="bias"):
        QuietThinker.from_base_model(trunk, tokenizer_of(WORDS), 1.0, seed=0)


def test_learning_rates(tmp_path: Path) -> None:
    thinker = QuietThinker.from_checkpoint(write_random_checkpoint(tmp_path, "qwen2"))
    settings = replace(RECOMMENDED.optimisation, embedding_learning_rate=0.5)
    groups = parameter_groups(thinker, settings)
    assert [group["lr"] for group in groups] == [2e-4, 3e-3, 0.5]
    trunk, head, embeddings = (group["params"] for group in groups)
    assert len(head) == 5
    assert embeddings[0] is thinker.start_embedding
    assert {*trunk, *head, *embeddings} == {*thinker.parameters()}


@pytest.mark.parametrize(
    "wrong", [{"budget": -1}, {"ahead": 0}, {"per_position": 0}, {"temperature": 0.0}]
)
def test_impossible_thoughts_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is "):
        Thinking(**wrong)


def test_draws_follow_the_distribution_and_spare_banned_tokens() -> None:
    probability_V = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.25, 0.0])
    logits_NV = probability_V.log().expand(20_000, -1)
    choose = random_draw(1.0, torch.Generator().manual_seed(0))
    ids_N = choose(logits_NV, logits_NV.softmax(dim=-1), 0, 0)
    share_V = ids_N.bincount(minlength=6) / len(ids_N)
    torch.testing.assert_close(share_V, probability_V, rtol=0, atol=0.015)
    assert not share_V[probability_V == 0].any()


def test_the_tokenizer_of_a_checkpoint_is_not_grown_twice(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, "mistral")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trunk = QuietThinker.from_checkpoint(folder).base_model
    thinker = QuietThinker.from_base_model(trunk, tokenizer, 1.0, seed=0)
    assert thinker.meta_token_ids == (64, 65)
    assert len(thinker.lm_head_VH) == 66
