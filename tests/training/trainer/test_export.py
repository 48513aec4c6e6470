"""From trainer to server: what is exported predicts what the trainer predicted."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from quietstar_infer import reference
from quietstar_infer.config import QuietStarConfig
from quietstar_infer.params import ThoughtParams
from quietstar_infer.reference import ReferenceDecoder, given_thought
from tests.support.engine import Ask, thinking_engine
from tests.support.training.runs import small_recipe
from training.demo.tokenizer import build_tokenizer
from training.errors import UsageError
from training.thoughts.batch import Batch, make_batch
from training.thoughts.loading import has_thought_parts, load_model, load_source
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import seeded_draw
from training.trainer.build import build
from training.trainer.export import choose_checkpoint
from training.trainer.recipe import Lora, Recipe
from training.trainer.run import train

pytestmark = pytest.mark.slow

BUDGET = 2
PLACES = [(b, i, p) for b in range(2) for i in (0, 3, 9, 14) for p in range(2)]
KINDS = ["checkpoint", "base model", "lora"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write_base_model(folder: Path) -> None:
    """A plain base model whose embedding table is its language-model head, too."""
    texts = [json.loads(line)["text"] for line in (folder.parent / "text.jsonl").open()]
    tokenizer = build_tokenizer(["---", *texts], extra_tokens=(), max_length=512)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe_of(kind: str, folder: Path) -> Recipe:
    recipe = small_recipe(folder)
    if kind == "checkpoint":
        return recipe
    write_base_model(folder / "base")
    lora = Lora(rank=4) if kind == "lora" else None
    return replace(recipe, model=replace(recipe.model, source=str(folder / "base"), lora=lora))


@pytest.fixture(scope="module", params=KINDS)
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe whose run has ended and been exported."""
    recipe = recipe_of(request.param, tmp_path_factory.mktemp("export"))
    rates = replace(recipe.optimisation, head_learning_rate=0.02)
    recipe = replace(recipe, optimisation=rates)
    train(recipe)
    return recipe


def trainers_own(recipe: Recipe) -> tuple[Batch, StepOutput]:
    """A training step on some text, by the checkpoint that was exported."""
    model = build(recipe).model
    model.load_weights(choose_checkpoint(recipe.run.output).folder)
    generator = torch.Generator().manual_seed(0)
    batch = make_batch(torch.randint(8, 60, (2, 16), generator=generator), pad_token_id=2)
    rows = batch.input_ids_BT.shape[1] * recipe.thinking.per_position
    with torch.no_grad():
        return batch, model(batch, seeded_draw([1, 2], rows))


def test_the_export_predicts_what_the_trainer_did(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, output = trainers_own(recipe)
    # In training START's and END's logits count; in serving they are out of the question.
    monkeypatch.setattr(reference, "mask_meta_tokens", lambda logits, ids: logits)
    decoder = ReferenceDecoder.from_checkpoint(recipe.run.output / "model")
    assert output.tokens.mixing_weight_BTPS.abs().max() > 1e-3
    for b, i, p in PLACES:
        ids = batch.input_ids_BT[b].tolist()
        thought = output.thoughts.ids[b, i, p].tolist()
        said = decoder.predict(ids[: i + 1], BUDGET, given_thought(thought))
        weight = output.tokens.mixing_weight_BTPS[b, i, p, 0]
        assert said.mixing_weight == pytest.approx(float(weight), abs=1e-4)
        for logits_V, nll in (
            (said.logits_V, output.tokens.talk_nll_BTPS[b, i, p, 0]),
            (said.base_logits_V, output.tokens.base_nll_BT[b, i]),
        ):
            found = -logits_V.log_softmax(-1)[ids[i + 1]]
            torch.testing.assert_close(found, nll, rtol=1e-4, atol=1e-4)


def test_the_export_describes_itself(recipe: Recipe) -> None:
    folder = recipe.run.output / "model"
    config = QuietStarConfig.from_checkpoint(folder)
    assert config.default_thought_budget == BUDGET
    assert config.embedding_scale == 100
    section = json.loads((folder / "config.json").read_text())["quiet_star"]
    assert section["trained_on"] == recipe.data.path
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] is not None
    card = (folder / "README.md").read_text()
    for evaluation in choose_checkpoint(recipe.run.output).evaluations:
        assert f"{evaluation['eval_gain']:.4f}" in card


def test_training_on_keeps_the_generation_config(tmp_path: Path) -> None:
    """Of a thinker and of a plain base model: several end-of-text tokens, and what transformers
    would refuse to save.
    """
    own = {"eos_token_id": [2, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": False}
    for kind in ("checkpoint", "base model"):
        (tmp_path / kind).mkdir()
        recipe = recipe_of(kind, tmp_path / kind)
        recipe = replace(recipe, run=replace(recipe.run, steps=1))
        config = Path(recipe.model.source) / "generation_config.json"
        config.write_text(json.dumps(own))
        written = train(recipe) / "generation_config.json"
        found = json.loads(written.read_text())
        assert {name: found.get(name, False) for name in own} == own  # False is the default


def test_an_export_can_be_trained(recipe: Recipe, tmp_path: Path) -> None:
    again = replace(
        recipe,
        model=replace(recipe.model, source=str(recipe.run.output / "model"), lora=None),
        run=replace(recipe.run, output=tmp_path / "run", steps=1),
    )
    train(again)
    first = choose_checkpoint(again.run.output).evaluations[0]
    best = min(e["eval_nll"] for e in choose_checkpoint(recipe.run.output).evaluations[1:])
    assert first["eval_nll"] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("recipe", ["lora"], indirect=True)
def test_an_adapter_is_kept_beside_the_model(recipe: Recipe, tmp_path: Path) -> None:
    """peft makes of it the model that was exported, and so does a run that starts from it."""
    run = recipe.run.output
    base = AutoModelForCausalLM.from_pretrained(recipe.model.source)
    merged = AutoModelForCausalLM.from_pretrained(run / "model")
    base.resize_token_embeddings(merged.config.vocab_size)
    ids = torch.arange(8, 20)[None]
    with torch.no_grad():
        words = load_source(recipe.model.source).config.vocab_size
        before = base(ids).logits[..., :words]
        adapted = PeftModel.from_pretrained(base, run / "adapter").eval()(ids).logits[..., :words]
        exported = merged.eval()(ids).logits[..., :words]
    torch.testing.assert_close(adapted, exported, atol=1e-4, rtol=1e-4)
    assert (before - exported).abs().max() > 10 * (adapted - exported).abs().max()

    rates = replace(recipe.optimisation, learning_rate=1e-5)
    on = replace(
        recipe,
        model=replace(recipe.model, source=str(run / "adapter")),
        optimisation=rates,
        run=replace(recipe.run, output=tmp_path / "run", steps=1),
    )
    started, expected = (load_model(str(run / name))[0] for name in ("adapter", "model"))
    for name, tensor in expected.official_tensors().items():
        torch.testing.assert_close(started.official_tensors()[name], tensor, atol=1e-5, rtol=1e-5)
    train(on)
    assert json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(run / "adapter")


@pytest.mark.parametrize("recipe", ["lora"], indirect=True)
def test_an_adapter_alone_is_no_model(recipe: Recipe, tmp_path: Path) -> None:
    adapter = recipe.run.output / "adapter"
    with pytest.raises(UsageError, match="is an adapter, from which `train` can start"):
        has_thought_parts(adapter)
    shutil.copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter" / "thought_parts.safetensors").unlink()
    # As others' adapters are: the thought parts are the base model's, here new ones.
    thinker, _ = load_model(str(tmp_path / "adapter"), 1.0, seed=3)
    new, _ = load_model(recipe.model.source, 1.0, seed=3)
    assert torch.equal(thinker.start_embedding, new.start_embedding)
    config = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"base_model_name_or_path": None}))
    with pytest.raises(UsageError, match="names no base model: set its base_model_name_or_path"):
        load_model(str(tmp_path / "adapter"))
    config.write_text(json.dumps(content | {"base_model_name_or_path": "/nowhere"}))
    with pytest.raises(UsageError, match="cannot load the model /nowhere"):
        load_source(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"nonsense")
    config.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="cannot merge the adapter"):
        load_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize("recipe", ["lora"], indirect=True)  # the one with most behind it
def test_the_engine_samples_and_thinks_as_the_reference(recipe: Recipe) -> None:
    folder = recipe.run.output / "model"
    prompts = [[11, 35, 51, 10, 41], [*range(8, 40)]]
    decoder = ReferenceDecoder.from_checkpoint(folder)
    expected = [decoder.generate(prompt, 8, BUDGET) for prompt in prompts]
    sampling = {"max_tokens": 8, "ignore_eos": True}
    with thinking_engine(folder) as engine:
        asks = [Ask(prompt, ThoughtParams(BUDGET, 0.0), sampling) for prompt in prompts]
        answers = [answer for (answer,) in engine.run(asks)]
    for answer, (tokens, predictions) in zip(answers, expected, strict=True):
        assert answer.token_ids == tokens
        assert answer.thoughts == [prediction.thought_ids for prediction in predictions]


@pytest.mark.parametrize("recipe", ["base model"], indirect=True)
def test_low_precision_export(recipe: Recipe, tmp_path: Path) -> None:
    short = replace(recipe.run, output=tmp_path / "run", steps=1, export_dtype="bfloat16")
    folder = train(replace(recipe, run=short))
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert ReferenceDecoder.from_checkpoint(folder).config.default_thought_budget == BUDGET


def test_a_tokenizer_without_a_dash(tmp_path: Path) -> None:
    recipe = recipe_of("base model", tmp_path)
    words = models.WordLevel({"<unk>": 0, "</s>": 1, "t8": 2}, unk_token="<unk>")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(recipe.model.source)
    with pytest.raises(UsageError, match="the tokenizer cannot write ---"):
        train(recipe)
    assert not list(recipe.run.output.iterdir())


@pytest.mark.parametrize(
    "source", ["no/such/model", "nowhere", "runs/nowhere", "/no/such/model", "./model", "../a/b"]
)
def test_a_missing_model_is_one_line(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = small_recipe(tmp_path, model={"source": source})
    with pytest.raises(UsageError, match=f"cannot load the model {source}") as caught:
        train(recipe)
    assert "\n" not in str(caught.value)
    assert "there is no such folder" in str(caught.value)
    assert "Repo id" not in str(caught.value)
