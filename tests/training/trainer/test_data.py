"""Text from files, cut into pieces."""

import bz2
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from tests.support.checkpoints import TOKENIZER
from tests.support.training.runs import small_recipe
from training.config import Beginning
from training.errors import UsageError
from training.evaluations.tasks.definitions import TextTask, load_task
from training.evaluations.tasks.passages import item_maker
from training.evaluations.tasks.prompts import PromptFormat
from training.thoughts.batch import IGNORED
from training.trainer.data import (
    collate,
    document_starts,
    joined,
    load_pieces,
    window_start,
)
from training.trainer.documents import Document
from training.trainer.recipe import Recipe

TEXTS = [f"t{8 + i} t{9 + i} t{10 + i} t{11 + i}" for i in range(20)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder: Path, suffix: str, texts: list[Any]) -> str:
    path = folder / f"written{suffix}"
    kind = suffix.split(".")[1]
    if kind == "parquet":
        datasets.Dataset.from_dict({"text": texts}).to_parquet(path)
        return str(path)
    written = {
        "txt": "".join(f"{text}\n" for text in texts),
        "csv": "text,number\n" + "".join(f'"{text}",{n}\n' for n, text in enumerate(texts)),
    }.get(kind, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    open_: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    with open_(path, "wt") as file:
        file.write(written)
    return str(path)


def recipe_for(folder: Path, **data: Any) -> Recipe:
    return small_recipe(folder, data={"eval_documents": 4, **data})


def load(recipe: Recipe) -> tuple[list[list[int]], list[list[int]]]:
    pieces = load_pieces(recipe, load_tokenizer(TOKENIZER))
    train, evaluation = ([row["input_ids"] for row in dataset] for dataset in pieces)
    return train, evaluation


@pytest.mark.parametrize(
    "suffix",
    [
        *(".jsonl", ".json", ".csv", ".parquet", ".txt"),
        *(".jsonl.gz", ".csv.gz", ".txt.gz", ".jsonl.bz2", ".json.xz"),
    ],
)
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    train, evaluation = load(recipe_for(tmp_path, path=write(tmp_path, suffix, TEXTS)))
    assert evaluation == [
        [8, 9, 10, 11, 2, 9, 10, 11, 12, 2, 10, 11, 12, 13, 2, 11],
        [12, 13, 14, 2],
    ]
    assert [len(piece) for piece in train] == [16] * 5
    assert train[0][:5] == [12, 13, 14, 15, 2]


def test_streaming_reads_the_same_documents_again_and_again(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, path=write(tmp_path, ".jsonl", TEXTS), pieces="window")
    streamed = replace(recipe, data=replace(recipe.data, streaming=True, shuffle_buffer=8))
    pieces = load_pieces(streamed, load_tokenizer(TOKENIZER))
    train, evaluation = load(recipe)
    assert [row["input_ids"] for row in pieces.evaluation] == evaluation
    for _ in range(2):
        shuffled = [row["input_ids"] for row in pieces.train.take(3 * len(train))]
        assert shuffled != 3 * train
        assert all(shuffled.count(piece) >= 2 for piece in train)


def hub_folder(folder: Path) -> Path:
    """A data set as it lies on the hub: a configuration of two splits, one of two files."""
    hub = folder / "hub"
    for split, files in {"train": [TEXTS[:10], TEXTS[10:]], "test": [["t50 t51 t52 t53"]]}.items():
        for number, texts in enumerate(files):
            path = hub / "words" / split / f"{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict({"text": texts}).to_parquet(path)
    parts = "".join(f"{{split: {x}, path: words/{x}/*.parquet}}, " for x in ("train", "test"))
    (hub / "README.md").write_text(
        f"---\nconfigs:\n- config_name: words\n  data_files: [{parts}]\n---\n"
    )
    return hub


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_configuration_and_splits_as_on_the_hub(tmp_path: Path, streaming: bool) -> None:
    data = {"path": str(hub_folder(tmp_path)), "name": "words", "eval_split": "test"}
    recipe = recipe_for(tmp_path, **data, streaming=streaming)
    pieces = load_pieces(recipe, load_tokenizer(TOKENIZER))
    assert [row["input_ids"] for row in pieces.evaluation] == [[50, 51, 52, 53, 2]]
    read = {i for row in pieces.train.take(20) for i in row["input_ids"]}
    assert read == {*range(8, 31), 2}
    for wrong in ({"name": "letters"}, {"split": "dev"}):
        with pytest.raises(UsageError, match="cannot read the data set") as caught:
            load(recipe_for(tmp_path, **{**data, **wrong}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".txt"])
def test_a_folder_of_files(tmp_path: Path, suffix: str) -> None:
    for name, texts in (("a", TEXTS[:10]), ("b", TEXTS[10:])):
        part = tmp_path / "texts" / name
        part.mkdir(parents=True)
        write(part, suffix, texts)
    train, evaluation = load(recipe_for(tmp_path, path=str(tmp_path / "texts")))
    assert evaluation[0][:5] == [8, 9, 10, 11, 2]
    assert sum(map(len, train)) == 16 * 5


def test_windows_are_of_one_document(tmp_path: Path) -> None:
    texts = [" ".join(f"t{8 + j}" for j in range(40)), *TEXTS]
    path = write(tmp_path, ".jsonl", texts)
    first = recipe_for(tmp_path, path=path, pieces="window", end_of_text=False)
    _, evaluation = load(first)
    assert [len(piece) for piece in evaluation] == [16, 4, 4, 4]
    start = evaluation[0][0]
    assert evaluation[0] == list(range(start, start + 16))


@pytest.mark.parametrize(("rule", "before"), [("tokenizer", []), ("bos", [1]), ("nothing", [])])
def test_documents_begin_as_in_an_evaluation(
    tmp_path: Path, rule: Beginning, before: list[int]
) -> None:
    data = {"path": write(tmp_path, ".jsonl", TEXTS), "pieces": "window", "beginning": rule}
    _, evaluation = load(recipe_for(tmp_path, **data))
    assert evaluation[0] == [*before, 8, 9, 10, 11, 2]
    _, task = load_task("demo-text")
    assert isinstance(task, TextTask)
    make = item_maker(task, load_tokenizer(TOKENIZER), 99, PromptFormat(rule))
    for text, ids in zip(TEXTS[:4], evaluation, strict=True):
        assert make({"text": text}).passages[0].ids == ids[:-1]


def test_evaluation_text_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    data = {
        "path": write(tmp_path, ".jsonl", TEXTS),
        "eval_path": write(own, ".jsonl", ["t50 t51 t52 t53"]),
    }
    train, evaluation = load(recipe_for(tmp_path, **data))
    assert evaluation == [[50, 51, 52, 53, 2]]
    assert train[0][0] == 8


@pytest.mark.parametrize(
    ("texts", "data", "said"),
    [
        (TEXTS, {"column": "story"}, "has no column 'story' but text; set data.column"),
        ([*TEXTS, None], {}, "'text' of document 16 is not text but None"),
        ([5] * 9, {}, "'text' of document 0 is not text but 5"),
        ([], {}, "is empty"),
        (TEXTS[:4], {}, "has 4 documents, and 4 are for evaluation; set data.eval_documents"),
        (["t8"] * 9, {"pieces": "window"}, "has no document of 4 tokens or more"),
    ],
)
def test_wrong_data_is_one_line(
    tmp_path: Path, texts: list[Any], data: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load(recipe_for(tmp_path, path=write(tmp_path, ".jsonl", texts), **data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["nowhere.jsonl", "no-such-folder/nowhere", "/no/such/folder", "./nowhere", "a/b/texts.csv.gz"],
)
def test_a_missing_data_set_is_one_line(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=f"cannot read the data set .*{path}") as caught:
        load(recipe_for(tmp_path, path=path))
    assert "\n" not in str(caught.value)
    assert "Repo id" not in str(caught.value)
    assert str(caught.value).count("cannot read") == 1
    # Only what can be a name on the hub is looked for there.
    assert ("no such file or folder" in str(caught.value)) == (path != "no-such-folder/nowhere")


def test_a_broken_file_and_an_unknown_kind(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{nonsense")
    with pytest.raises(UsageError, match=r"cannot read the data set .*broken\.jsonl") as caught:
        load(recipe_for(tmp_path, path=str(broken)))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"expected a file that ends in \.jsonl"):
        load(recipe_for(tmp_path, path=str(TOKENIZER / "model.safetensors")))


def test_too_small_a_window(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, optimisation={"window": 3})
    with pytest.raises(UsageError, match="window is 3: too short to look 2 tokens ahead"):
        load(recipe)


def test_packing_cuts_across_documents() -> None:
    documents = [Document(ids, [ids[0] > 1] * len(ids)) for ids in ([1, 2, 3], [4], [5, 6, 7])]
    assert joined(documents, 3) == [
        ([1, 2, 3], [False, False, False]),
        ([4, 5, 6], [True, True, True]),
        ([7], [True]),
    ]
    assert document_starts([3, 1, 3], 3) == [[0, 0, 0], [0, 1, 1], [0]]
    assert document_starts([7], 3) == [[0, 0, 0], [0, 0, 0], [0]]


def test_packed_pieces_know_their_documents(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl", TEXTS)
    pieces = load_pieces(recipe_for(tmp_path, path=path), load_tokenizer(TOKENIZER))
    assert [row["document_start"] for row in pieces.evaluation] == [
        [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 10, 10, 10, 15],
        [0, 0, 0, 0],
    ]
    for kind in ("joined", "window"):
        others = load_pieces(
            recipe_for(tmp_path, path=path, pieces=kind), load_tokenizer(TOKENIZER)
        )
        assert set(next(iter(others.train))) == {"input_ids"}


def test_batches() -> None:
    pieces = [
        {"input_ids": [5, 6, 7, 8], "document_start": [0, 0, 2, 2]},
        {"input_ids": [9, 3], "document_start": [0, 1]},
    ]
    batch = {name: tensor.tolist() for name, tensor in collate(pieces, 2).items()}
    assert batch == {
        "input_ids": [[5, 6, 7, 8], [9, 3, 2, 2]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "document_start": [[0, 0, 2, 2], [0, 1, 1, 1]],
    }
    single = [{"input_ids": [5, 6], "document_start": [0, 0]}, {"input_ids": [5]}]
    assert set(collate(single, 2)) == {"input_ids", "attention_mask"}


def test_a_window_depends_on_its_seed_alone() -> None:
    document = list(range(100))
    starts = [window_start(len(document), 10, f"0/{number}") for number in range(50)]
    assert starts == [window_start(len(document), 10, f"0/{number}") for number in range(50)]
    assert len(set(starts)) > 20
    assert min(starts) >= 0
    assert max(starts) <= 90
    assert window_start(len(document), 100, "x") == 0


CHAT = (
    "{% for message in messages %}{{ message['role'] }} t9 {{ message['content'] }} t10\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant t9{% endif %}"
)


def with_template(template: str) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.chat_template = template
    return tokenizer


def chat_recipe(folder: Path, chats: list[Any], **data: Any) -> Recipe:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    data = {"eval_documents": 1, "pieces": "window", "column": "messages", **data}
    return small_recipe(
        folder,
        data={"path": str(path), **data},
        optimisation={"sequences_per_step": 1, "window": 64},
        run={"sequences_per_device": 1},
    )


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TALK = [
    *(turn("user", "t11 t12"), turn("assistant", "t13")),
    *(turn("user", "t14"), turn("assistant", "t15 t16")),
]


def learnt_text(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    kept = [
        token for token, is_learnt in zip(row["input_ids"], row["learnt"], strict=True) if is_learnt
    ]
    return str(tokenizer.decode(kept))


def test_chats_are_written_by_the_chat_template(tmp_path: Path) -> None:
    tokenizer = with_template(CHAT)
    pieces = load_pieces(chat_recipe(tmp_path, [TALK] * 3), tokenizer)
    ids = tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert [row["input_ids"] for row in pieces.train] == [ids, ids]


def test_of_chats_only_answers_are_learnt_where_asked(tmp_path: Path) -> None:
    tokenizer = with_template(CHAT)
    pieces = load_pieces(chat_recipe(tmp_path, [TALK] * 3, answers_only=True), tokenizer)
    for row in (*pieces.train, *pieces.evaluation):
        assert learnt_text(row, tokenizer).split() == ["t13", "t10", "t15", "t16", "t10"]
    batch = collate(list(pieces.train), tokenizer.pad_token_id)
    assert (
        (batch["labels"] != IGNORED)
        == torch.tensor([[*map(bool, row["learnt"])] for row in pieces.train])
    ).all()
    assert (batch["labels"] == batch["input_ids"])[batch["labels"] != IGNORED].all()


@pytest.mark.parametrize("pieces", ["window", "packed", "joined"])
def test_of_text_after_a_prompt_only_the_text_is_learnt(tmp_path: Path, pieces: str) -> None:
    path = tmp_path / "answers.jsonl"
    rows = [{"question": "t8 t9 t10", "text": " t11 t12"}] * 24
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_for(
        tmp_path, path=str(path), prompt_column="question", answers_only=True, pieces=pieces
    )
    tokenizer = load_tokenizer(TOKENIZER)
    for row in load_pieces(recipe, tokenizer).train:
        learnt = [bool(flag) for flag in row["learnt"]]
        assert learnt == [token in (11, 12, tokenizer.eos_token_id) for token in row["input_ids"]]


def test_what_is_no_chat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        load_pieces(chat_recipe(tmp_path, [TALK] * 3), load_tokenizer(TOKENIZER))
    with pytest.raises(UsageError, match="'messages' of document 0 is neither text nor messages"):
        load_pieces(chat_recipe(tmp_path, [[{"role": "user"}]] * 3), with_template(CHAT))
    with pytest.raises(UsageError, match="chat template cannot write: no system"):
        load_pieces(
            chat_recipe(tmp_path, [TALK] * 3), with_template("{{ raise_exception('no system') }}")
        )
    last_only = "{{ messages | length }} {{ messages[-1]['content'] }}"
    with pytest.raises(UsageError, match="writes earlier messages differently"):
        load_pieces(chat_recipe(tmp_path, [TALK] * 3, answers_only=True), with_template(last_only))
