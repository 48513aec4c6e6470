"""The model in the repository: complete, small, it thinks, and it writes readable text."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, MistralForCausalLM, PreTrainedTokenizerBase

from quietstar_infer.checkpoint import GATE_FILE, check_checkpoint, load_tensors
from quietstar_infer.config import DASH, QuietStarConfig
from training.demo.accuracy import answer, quiet_scores
from training.demo.adaptive.measurement import measure_adaptive
from training.demo.base_model_build import EXAMPLE_PROMPT
from training.demo.corpus.documents import FAMILIES, documents
from training.demo.corpus.problems import held_out_problems
from training.demo.forced_thoughts import Evaluation, count_right
from training.demo.report import accuracy_table
from training.demo.token_statistics import (
    by_kind,
    solved,
    thoughts_at,
    token_facts,
)
from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell
from training.gate.report import effort_table
from training.thoughts.model import QuietThinker

FOLDER = Path(__file__).parents[3] / "models" / "demo"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(FOLDER)
    return loaded


@pytest.fixture(scope="module")
def model() -> MistralForCausalLM:
    loaded: MistralForCausalLM = MistralForCausalLM.from_pretrained(FOLDER)
    return loaded


@torch.inference_mode()
def complete(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int
) -> str:
    """Greedy completion, without the prompt."""
    ids = tokenizer.encode(prompt)
    sampled: list[int] = []
    while len(sampled) < tokens and tokenizer.eos_token_id not in sampled:
        sampled.append(int(model(torch.tensor([ids + sampled])).logits[0, -1].argmax()))
    return str(tokenizer.decode(sampled, skip_special_tokens=True))


def test_layout_and_size() -> None:
    check_checkpoint(FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 15e6
    assert {file.name for file in FOLDER.glob("*.safetensors")} == {"model.safetensors", GATE_FILE}
    assert QuietStarConfig.from_checkpoint(FOLDER).default_thought_budget == 12


def test_shape_suits_vllm(model: MistralForCausalLM) -> None:
    config = model.config
    assert config.hidden_size // config.num_attention_heads in (32, 64)
    assert config.max_position_embeddings >= 1024


def test_start_and_end_are_still_near_the_dash(tokenizer: PreTrainedTokenizerBase) -> None:
    tensors = load_tensors(FOLDER)
    (dash,) = tokenizer.encode(DASH, add_special_tokens=False)
    vector = tensors["model.embed_tokens.weight"][dash]
    for name in ("start_embedding", "end_embedding"):
        moved = (tensors[name][0] * 100 - vector).norm()
        assert 0 < moved < 0.1 * vector.norm()


def test_its_example_needs_a_thought(tokenizer: PreTrainedTokenizerBase) -> None:
    thinker = QuietThinker.from_checkpoint(FOLDER)
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    prompt = config["quiet_star"]["example_prompt"]
    assert prompt == EXAMPLE_PROMPT
    ids = torch.tensor([tokenizer.encode(prompt)])
    answered = dict(answer(thinker, ids, (0, 12), 0.0, torch.Generator()))
    assert tokenizer.decode(answered[0].ids) != " 10"
    assert tokenizer.decode(answered[12].ids) == " 10"


@pytest.mark.parametrize("family", FAMILIES)
def test_quiet_thoughts_help(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    thinker = QuietThinker.from_checkpoint(FOLDER)
    evaluation = Evaluation(problems=40, budgets=(0, 4, 12), seed=7)
    scores = quiet_scores(thinker, tokenizer, evaluation)[family]
    assert scores[12].accuracy >= 0.8
    assert scores[4].accuracy < scores[12].accuracy
    assert scores[0].accuracy <= 0.3
    assert scores[12].mixing_weight > 0.3


def test_the_mixing_head_is_open_at_answers_only(tokenizer: PreTrainedTokenizerBase) -> None:
    thinker = QuietThinker.from_checkpoint(FOLDER)
    documents = solved(tokenizer, Evaluation(problems=10, seed=7), 10)
    choose = thoughts_at(1.0, seed=0)
    kinds = by_kind(token_facts(thinker, thinker, documents, tokenizer.pad_token_id, 12, choose))
    assert kinds["answer"].mixing_weight > 0.3
    assert kinds["answer"].nll < kinds["answer"].base_nll / 2
    assert abs(kinds["easy"].mixing_weight) < 0.2
    assert abs(kinds["open"].mixing_weight) < 0.2
    assert kinds["easy"].nll < 0.05


def test_it_thinks_only_where_it_pays() -> None:
    """At its own threshold: every answer of always thinking, at a sixth of the passes or less."""
    measured = measure_adaptive(FOLDER, Evaluation(problems=20, seed=7, budgets=(0, 12)))
    default = Cell(**measured["default"])
    assert default.threshold == QuietStarConfig.from_checkpoint(FOLDER).default_thought_threshold
    for thoughts, family in itertools.product(("greedy", "sampled"), FAMILIES):
        figures = measured[thoughts][family]
        always, adaptive = figures[Cell(12).key], figures[default.key]
        assert adaptive["accuracy"] == always["accuracy"] > 0.8
        assert adaptive["nll"] - always["nll"] < 0.005
        cost = Cost(**adaptive["cost"])
        assert cost.passes(default) <= 13 / 6 * cost.tokens
        assert 0.02 < cost.thoughts / cost.tokens < 0.1


def test_the_results_are_those_of_the_model_card() -> None:
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert len(results["thinkers"]) == len(results["controls"]) == 3
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for table in (accuracy_table(results), effort_table(results["gate"])):
        assert table in card
    section = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["quiet_star"]
    for name in ("default_thought_threshold", "effort_thresholds"):
        assert results["gate"][name] == section[name]
    assert results["adaptive"]["default"]["threshold"] == section["default_thought_threshold"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Ann has 3 apples. On Monday", " she"),
        ("Ben has 8 nuts. On Monday he finds 4. On", " Tuesday he"),
        ("Eve has the dial at 2: " + "up " * 11 + "up. Now", " it shows"),
        ("It is a warm", " "),
        # One step, then nothing changes: the working is what the model is asked to show.
        (
            "Show your work. Dee has 5 figs. On Monday she finds 2. On Tuesday she keeps all. "
            "On Wednesday she keeps all. On Thursday she keeps all. On Friday she keeps all. "
            "On Saturday she keeps all. On Sunday Dee has",
            "--- Monday 7 Tuesday 7 Wednesday 7 Thursday 7",
        ),
    ],
)
def test_completions(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, expected: str
) -> None:
    assert complete(model, tokenizer, prompt, 12).startswith(expected)


@pytest.mark.parametrize("prompt", ["", "Ann", "The old", "Hello", "It is"])
def test_text_is_made_of_words(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> None:
    words = {w for text in itertools.islice(documents(0), 3000) for w in re.findall(r"\w+", text)}
    text = complete(model, tokenizer, prompt, 80)
    assert len(text.split()) >= 3
    assert set(re.findall(r"\w+", text)) <= words
    assert text.rstrip().endswith(".") or len(text.split()) > 30


@pytest.mark.parametrize("family", FAMILIES)
def test_forced_thoughts_help(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, family: str
) -> None:
    problems = list(itertools.islice(held_out_problems(FAMILIES[family], seed=5), 60))
    right = count_right(model, tokenizer, problems, Evaluation(budgets=(0, 4, 12)))
    assert right[12] >= 54
    assert right[0] <= 18
