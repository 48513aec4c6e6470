"""`python -m training evaluate` from its options to the files it writes."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest

from quietstar_infer.config import load_tokenizer
from training.cli import main
from training.evaluations.backends.base import PassageScores
from training.evaluations.backends.local import LocalBackend
from training.evaluations.report import NOTHING_SURE
from training.evaluations.tasks.passages import Passage
from training.thoughts.weights import load_base_model

DEMO = Path(__file__).parents[3] / "models" / "demo"
CHAIN = """\
kind: chain
data: {path: questions.jsonl}
prompt: "Show your work. {question}"
conclusion: " Now it shows"
max_tokens: 6
conclusion_tokens: 2
votes: 2
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files with the columns of the public data sets, and a task of one's own."""
    folder: Path = tmp_path_factory.mktemp("evaluate")
    questions = [
        {"question": "Ann has the dial at 2: up", "answer": f"2 + 1 = 3\n#### {n}"} for n in (3, 4)
    ]
    choices = [
        {
            "question": "Where is the cat?",
            "choices": {"label": ["A", "B"], "text": ["home", "school"]},
            "answerKey": key,
        }
        for key in "AB"
    ]
    for name, rows in (("questions", questions), ("choices", choices)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.Dataset.from_list(questions).to_parquet(folder / "questions.parquet")
    (folder / "texts.txt").write_text("Ann has 3 apples.\nBen sleeps at the market.\n")
    (folder / "chain.yaml").write_text(CHAIN)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The results of an evaluation that nothing interrupted, with a base model and a control
    beside it, which are the same.
    """
    base = folder / "base"
    load_base_model(DEMO).save_pretrained(base)
    load_tokenizer(DEMO).save_pretrained(base)
    beside = ("--base", str(base), "--control", str(base))
    assert main(options(folder, "whole", *beside)) == 0
    return folder / "whole"


def options(folder: Path, out: str, *more: str) -> list[str]:
    return [
        *("evaluate", str(DEMO), "--out", str(folder / out), "--budgets", "0", "3"),
        *("--tasks", "gsm8k", "commonsense-qa", "openwebmath", str(folder / "chain.yaml")),
        *("--data", f"gsm8k={folder / 'questions.parquet'}"),
        *("--data", f"commonsense-qa={folder / 'choices.jsonl'}"),
        *("--data", f"openwebmath={folder / 'texts.txt'}"),
        *("--batch-size", "1", "--device", "cpu"),
        *more,
    ]


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_everything_is_measured_and_can_be_repeated(folder: Path, whole: Path) -> None:
    found = results(whole)
    assert list(found["tasks"]) == ["gsm8k", "commonsense-qa", "openwebmath", "chain"]
    for task in found["tasks"].values():
        assert task["items"] == 2
        assert list(task["thinker"]) == ["0", "3"]
        # The thinker's own base model.
        for measure, estimate in task["base"]["0"].items():
            if isinstance(estimate, dict):
                assert estimate == pytest.approx(task["thinker"]["0"][measure], abs=1e-6)
    assert len(found["model"]["sha256"]) == 64
    assert found["base"]["sha256"] != found["model"]["sha256"]
    assert found["definitions"]["gsm8k"]["data"]["path"] == str(folder / "questions.parquet")
    assert found["rows"]["gsm8k"]["number"] == 2
    assert (found["seed"], found["temperature"], found["budgets"]) == (1234, 1.0, [0, 3])
    assert {"python", "quietstar", "torch", "transformers", "datasets"} == set(found["versions"])
    report = (whole / "report.md").read_text()
    assert "| gsm8k: accuracy, % | 2 | " in report
    assert "openwebmath: by how hard a token is" in report
    for name in found["tasks"]:
        plot = ElementTree.parse(whole / f"sweep-{name}.svg")
        assert plot.getroot().tag.endswith("svg")
        assert f"](sweep-{name}.svg)" in report


def test_gains_stand_beside_what_training_alone_gained(whole: Path) -> None:
    task = results(whole)["tasks"]["openwebmath"]
    found = task["beside_control"]
    assert list(found) == ["all", "hardest tenth for the base model"]
    everything = found["all"]
    # The control is the base model: training alone gained nothing, thoughts all.
    assert everything["alone"]["value"] == 0
    for key in ("0", "3"):
        gain = task["thinker"][key]["gain"]
        assert everything["thoughts"][key] == pytest.approx(gain, abs=1e-6)
    hardest = found["hardest tenth for the base model"]
    assert hardest["tokens"] == -(-everything["tokens"] // 10)
    report = (whole / "report.md").read_text()
    assert "## openwebmath: beside the control" in report
    assert "| training alone gained | b=0: beyond it | b=3: beyond it |" in report
    sure = any(part["thoughts"]["3"]["low"] > 0 for part in found.values())
    assert (NOTHING_SURE in report) != sure
    (line,) = (x for x in report.splitlines() if x.startswith("| gsm8k: accuracy"))
    assert line.count("|") == len(("", "items", "base model", "control", "b=0", "b=3")) + 1


@pytest.fixture(scope="module")
def swept(folder: Path) -> Path:
    """The results of a sweep over thresholds."""
    assert main(options(folder, "swept", "--threshold", "0.01", "0", "0.002")) == 0
    return folder / "swept"


def test_every_token_is_thought_about_unless_a_threshold_is_given(whole: Path) -> None:
    found = results(whole)
    assert (found["thresholds"], found["gate"]) == ([0.0], None)
    for task in found["tasks"].values():
        assert task["thinker"]["3"]["cost"]["thought_about"] == 1
        assert task["thinker"]["3"]["cost"]["passes_per_token"] == 4
        assert task["thinker"]["0"]["cost"]["passes_per_token"] == 1
    assert "Every token is thought about (threshold 0)." in (whole / "report.md").read_text()
    assert not list(whole.glob("cost-*"))


def test_the_report_says_what_stands_before_texts(folder: Path, whole: Path) -> None:
    assert results(whole)["beginning"] == {"rule": "tokenizer", "tokens": ["<s>"]}
    said = "Before every text stands `<s>` (as its tokenizer puts it there)."
    assert said in (whole / "report.md").read_text()
    command = options(folder, "nothing", "--beginning", "nothing", "--limit", "1")
    assert main(command) == 0
    without = results(folder / "nothing")
    assert without["beginning"] == {"rule": "nothing", "tokens": []}
    report = (folder / "nothing" / "report.md").read_text()
    assert "begin without a special token (by --beginning nothing): their first token is" in report
    tokens = [
        found["tasks"]["openwebmath"]["thinker"]["0"]["difficulty"]
        for found in (results(whole), without)
    ]
    assert tokens[0] != tokens[1]


def test_questions_are_put_after_examples_and_as_chats(folder: Path, whole: Path) -> None:
    command = options(folder, "shown", "--few-shot", "1", "--chat", "--limit", "1")
    assert main(command) == 0
    found = results(folder / "shown")
    assert (found["few_shot"], found["chat"]) == (1, True)
    # With --data the first row is the example, and is not asked; of texts none is.
    assert found["examples"]["gsm8k"] == [["Q: Ann has the dial at 2: up\nA:", " 3\n"]]
    assert {name: task["items"] for name, task in found["tasks"].items()} == dict.fromkeys(
        found["tasks"], 1
    )
    assert list(found["examples"]) == ["gsm8k", "commonsense-qa", "chain"]
    report = (folder / "shown" / "report.md").read_text()
    put = "Questions are put by the chat template, before which nothing stands and after 1 example."
    assert put in report
    assert "Questions are put" not in (whole / "report.md").read_text()


def test_thresholds_are_swept_beside_budgets(whole: Path, swept: Path) -> None:
    found, always = results(swept), results(whole)
    assert found["thresholds"] == [0.0, 0.002, 0.01]
    assert found["gate"] in ("entropy", "learned")
    for name, task in found["tasks"].items():
        assert list(task["thinker"]) == ["0", "3", "3@0.002", "3@0.01"]
        for key in ("0", "3"):
            assert task["thinker"][key] == always["tasks"][name]["thinker"][key]
        shares = [
            task["thinker"][key]["cost"]["thought_about"] for key in ("3", "3@0.002", "3@0.01")
        ]
        assert shares == sorted(shares, reverse=True)
        for key in ("3@0.002", "3@0.01"):
            cost = task["thinker"][key]["cost"]
            assert cost["thought_tokens"] == 3 * cost["thoughts"]
            assert cost["passes_per_token"] == pytest.approx(1 + 4 * cost["thought_about"])
        plot = ElementTree.parse(swept / f"cost-{name}.svg")
        assert plot.getroot().tag.endswith("svg")
    texts = found["tasks"]["openwebmath"]["thinker"]
    assert 0 < texts["3@0.01"]["cost"]["thought_about"] < 1


def test_the_report_says_when_it_thought_and_what_that_cost(swept: Path) -> None:
    report = (swept / "report.md").read_text()
    assert "A token is thought about where the thought is expected to save more than a" in report
    table = report.split("## openwebmath: what thinking costs\n\n")[1].split("\n\n")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    assert head[:5] == ["b", "over, nats", "thought about, %", "thought tokens", "passes per token"]
    assert [row[:2] for row in rows] == [["0", "–"], ["3", "0"], ["3", "0.002"], ["3", "0.01"]]
    assert rows[1][2:5] == ["100.0", rows[1][3], "4.00"]
    assert "](cost-openwebmath.svg)" in report


def test_a_threshold_can_be_evaluated_alone(folder: Path, swept: Path) -> None:
    assert main(options(folder, "alone", "--threshold", "0.002")) == 0
    for name, task in results(folder / "alone")["tasks"].items():
        assert list(task["thinker"]) == ["0", "3@0.002"]
        assert task["thinker"]["3@0.002"] == results(swept)["tasks"][name]["thinker"]["3@0.002"]
    page = Tokens()
    page.feed((folder / "alone" / "heat-map-openwebmath-0.html").read_text())
    skipped = [about for about in page.about if about.startswith("not thought about")]
    assert 0 < len(skipped) < len(page.about)
    assert not any("mixing weight" in about for about in skipped)
    assert all(", expected " in about for about in page.about)


class Tokens(HTMLParser):
    """The document of a heat map, with the details of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.about: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = (dict(attrs).get("class") or "").split()
        assert not {"src", "href"} & dict(attrs).keys(), "the file should need no other"
        if "token" in kind:
            self.texts.append("")
        if "about" in kind:
            self.about.append("")
        if tag == "span":
            self._inside.append(kind[0])

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "about" in self._inside:
            self.about[-1] += data
        elif "token" in self._inside:
            self.texts[-1] += data


def test_a_heat_map_is_the_document_with_its_thoughts(whole: Path) -> None:
    page = Tokens()
    page.feed((whole / "heat-map-openwebmath-0.html").read_text())
    assert "".join(page.texts) == "Ann has 3 apples."
    lines = (whole / "items.jsonl").read_text().splitlines()
    item = next(x for x in map(json.loads, lines) if "thoughts" in x)
    assert len(page.about) == len(item["thoughts"])
    for about, thought in zip(page.about, item["thoughts"], strict=True):
        assert about.startswith(thought)
        assert "mixing weight" in about
    assert not (whole / "heat-map-openwebmath-1.html").exists()


def test_an_interrupted_evaluation_is_resumed(
    folder: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = folder / "out"
    asked: list[int] = []
    score = LocalBackend.score

    def counted(self: Any, passages: Sequence[Passage], **how: Any) -> list[PassageScores]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(len(passages))
        return score(self, passages, **how)

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "score", counted)
        assert main(options(folder, "out")) == 130
    assert "add --resume to go on" in capsys.readouterr().err
    assert len((out / "items.jsonl").read_text().splitlines()) == 3
    assert main(options(folder, "out")) == 2
    assert "is not empty; add --resume" in capsys.readouterr().err
    assert main(options(folder, "out", "--resume")) == 0
    for name, task in results(out)["tasks"].items():
        assert task["thinker"] == results(whole)["tasks"][name]["thinker"]
    report = (out / "report.md").read_text()
    table = next(part for part in report.split("\n\n") if part.startswith("|"))
    assert table in capsys.readouterr().out
    # Nothing is asked again of an evaluation that has ended.
    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "score", None)
        assert main(options(folder, "out", "--resume")) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "chain=x.jsonl"], "--data names chain, which is not among --tasks"),
        (["--limit", "1", "--budgets", "0", "1017"], "needs "),
        (["--url", "http://127.0.0.1:9"], "does not answer as a server should"),
        (["--base", "/nowhere/at/all"], "cannot load the model /nowhere/at/all"),
        (["--budgets", "0", "--threshold", "0.1"], "give --budgets above 0"),
        (["--few-shot", "2"], "--few-shot is 2, but the data set"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(options(folder, "mistake", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("value", ["-0.5", "nan", "inf", "much"])
def test_a_threshold_is_a_finite_number_from_0_up(
    folder: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    with pytest.raises(SystemExit):
        main(options(folder, "mistake", "--threshold", value))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "argument --threshold: " in error
    assert f"'{value}' is not a finite number from 0 (think before every token) up, in" in error


def test_a_plain_base_model_has_no_thoughts_to_skip(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_base_model(DEMO).save_pretrained(tmp_path / "plain")
    load_tokenizer(DEMO).save_pretrained(tmp_path / "plain")
    command = ["evaluate", str(tmp_path / "plain"), "--out", str(tmp_path / "out")]
    assert main([*command, "--tasks", "demo-numbers", "--limit", "1", "--threshold", "0.1"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "is a plain base model, which has learned no thoughts: --threshold is for" in error


def test_a_plain_base_model_has_no_thoughts_to_gain_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can be measured without thoughts; what they gain is then no number, and not 0."""
    load_base_model(DEMO).save_pretrained(tmp_path / "plain")
    load_tokenizer(DEMO).save_pretrained(tmp_path / "plain")
    command = ["evaluate", str(tmp_path / "plain"), "--out", str(tmp_path / "out")]
    command += ["--tasks", "demo-text", "--limit", "2"]
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is a plain base model, which has learned no thoughts: add --budgets 0" in error
    assert main([*command, "--budgets", "0"]) == 0
    assert "| demo-text: gain | 2 | – | – |" in capsys.readouterr().out
    assert "| 0 | – | 0.0 | 0 | 1.00 | – | – |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("wrong", ["row", "thoughts", "data"])
def test_a_corrected_command_takes_the_folder_of_a_failed_one(
    folder: Path, tmp_path: Path, wrong: str
) -> None:
    """Also where the mistake is in the last row: all are looked at first."""
    rows = tmp_path / "rows.jsonl"
    good = [json.dumps({"text": f"Ann has {n} apples."}) for n in range(3)]
    rows.write_text("\n".join([*good, json.dumps({"text": ""})] if wrong == "row" else good))
    command = ["evaluate", str(DEMO), "--out", str(tmp_path / "out"), "--tasks", "demo-text"]
    data, budgets = ["--data", f"demo-text={rows}"], ["--budgets", "0"]
    if wrong == "thoughts":
        assert main([*command, *data, "--budgets", "1030"]) == 2
    if wrong == "data":
        assert main([*command, *budgets, "--data", f"demo-text={tmp_path / 'none.jsonl'}"]) == 2
    if wrong == "row":
        assert main([*command, *data, *budgets]) == 2
        rows.write_text("\n".join(good))
    assert main([*command, *data, *budgets]) == 0


def test_rows_without_a_column_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = f"gsm8k={folder / 'choices.jsonl'}"
    command = ["evaluate", str(DEMO), "--out", str(folder / "mistake"), "--tasks", "gsm8k"]
    assert main([*command, "--data", wrong]) == 2
    assert "has no column 'answer' but question, choices, answerKey" in capsys.readouterr().err


def test_a_row_without_an_answer_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = folder / "unanswered.jsonl"
    rows.write_text('{"text": "Ann has 3 apples."}\n{"text": ""}\n')
    command = ["evaluate", str(DEMO), "--out", str(folder / "unanswered"), "--tasks", "demo-text"]
    assert main([*command, "--budgets", "0", "--data", f"demo-text={rows}"]) == 2
    assert "demo-text, row 1 has nothing to predict" in capsys.readouterr().err
