"""Definitions of tasks: a YAML file per task; those in this folder are known by their names.

kind: number                                  # which of the classes below
data: {path: openai/gsm8k, name: main}        # on the hub, or a file beside the YAML
prompt: "Q: {question}\nA:"                   # columns of a row in braces
answer: " {answer}\n"
examples: {path: openai/gsm8k, name: main, split: train}    # for --few-shot; else the first rows
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from training.errors import UsageError
from training.evaluations.tasks.prompts import Example

TASKS = Path(__file__).parent
Row: TypeAlias = Mapping[str, Any]
"""A row of a task's data set, by column."""
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class DataSource:
    """A data set of `datasets`: a file, a folder or a name on the hub. With `streaming` only
    the rows that are used are downloaded.
    """

    __pydantic_config__ = _STRICT

    path: str
    name: str | None = None
    split: str = "test"
    streaming: bool = False


@dataclass(frozen=True)
class NumberTask:
    """A number is the answer: rows with `question` and `answer`, in which it follows `####`.

    `words`: all answers that there are, where these are words and not digits.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["number"]
    data: DataSource
    prompt: str
    answer: str
    words: tuple[str, ...] = ()
    examples: DataSource | None = None
    columns = ("question", "answer")

    def ask(self, row: Row) -> str:
        """The prompt."""
        return self.prompt.format(question=row["question"])

    def answer_text(self, row: Row) -> str:
        """The right answer as it follows the prompt."""
        return self.answer.format(answer=gold_number(row))

    def all_answers(self) -> list[str]:
        """Those of `words` as they follow the prompt."""
        return [self.answer.format(answer=word) for word in self.words]

    def example(self, row: Row) -> Example:
        """A row with its answer."""
        return Example(self.ask(row), self.answer_text(row))


@dataclass(frozen=True)
class LetterTask:
    """A choice is answered with its label: rows with `question`, `choices` (`label` and `text`)
    and `answerKey`.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["letter"]
    data: DataSource
    prompt: str
    choice: str
    answer: str
    examples: DataSource | None = None
    columns = ("question", "choices", "answerKey")

    def ask(self, row: Row) -> str:
        """The prompt."""
        choices = "\n".join(
            self.choice.format(label=label, text=text)
            for label, text in zip(row["choices"]["label"], row["choices"]["text"], strict=True)
        )
        return self.prompt.format(question=row["question"], choices=choices)

    def answer_text(self, label: str) -> str:
        """An answer as it follows the prompt."""
        return self.answer.format(label=label)

    def example(self, row: Row) -> Example:
        """A row with its answer."""
        return Example(self.ask(row), self.answer_text(row["answerKey"]))


@dataclass(frozen=True)
class ChoiceTask:
    """A choice is answered with its text; the likeliest counts. The rows are `LetterTask`'s."""

    __pydantic_config__ = _STRICT

    kind: Literal["choice"]
    data: DataSource
    prompt: str
    answer: str
    examples: DataSource | None = None
    columns = ("question", "choices", "answerKey")

    def ask(self, row: Row) -> str:
        """The prompt."""
        return self.prompt.format(question=row["question"])

    def answer_texts(self, row: Row) -> list[str]:
        """All answers as they follow the prompt."""
        return [self.answer.format(text=text) for text in row["choices"]["text"]]

    def example(self, row: Row) -> Example:
        """A row with its answer."""
        right = row["choices"]["label"].index(row["answerKey"])
        return Example(self.ask(row), self.answer_texts(row)[right])


@dataclass(frozen=True)
class TextTask:
    """Documents, every token of which is predicted."""

    __pydantic_config__ = _STRICT

    kind: Literal["text"]
    data: DataSource
    column: str = "text"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row."""
        return (self.column,)


@dataclass(frozen=True)
class ChainTask:
    """A number is the answer, after a visible chain of thought; the majority of several chains
    counts. The rows are `NumberTask`'s.

    A chain ends with the text's end, before a `stop` text, or after `max_tokens`. With a
    `conclusion` that text is put behind it, and the first number of the next `conclusion_tokens`
    is the answer; without one it is the chain's last number. `words` as in `NumberTask`.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["chain"]
    data: DataSource
    prompt: str
    conclusion: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 384
    conclusion_tokens: int = 12
    votes: int = 8
    temperature: float = 0.9
    words: tuple[str, ...] = ()
    examples: DataSource | None = None
    columns = ("question", "answer")

    def __post_init__(self) -> None:
        for name in ("max_tokens", "conclusion_tokens", "votes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")

    def ask(self, row: Row) -> str:
        """The prompt."""
        return self.prompt.format(question=row["question"])

    def example(self, row: Row) -> Example:
        """A row with its chain of thought, which stands before the four number signs."""
        chain = str(row["answer"]).rpartition("####")[0].strip()
        return Example(self.ask(row), f" {chain}{self.conclusion or ''} {gold_number(row)}")


QuestionTask: TypeAlias = NumberTask | LetterTask | ChoiceTask | ChainTask
Task: TypeAlias = QuestionTask | TextTask
_ADAPTER: TypeAdapter[Task] = TypeAdapter(Annotated[Task, Field(discriminator="kind")])


def gold_number(row: Row) -> str:
    """What follows the four number signs of GSM8K's answers."""
    return str(row["answer"]).rpartition("####")[2].strip()


def task_names() -> list[str]:
    """The tasks that come with the trainer."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def load_task(name: str, data: str | None = None) -> tuple[str, Task]:
    """A task by name, or from a YAML file, and what it is called; `data` is another place to get
    its rows from, and its examples. Raises `UsageError`, one line.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else TASKS / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        task = _ADAPTER.validate_python(content)
    except FileNotFoundError:
        raise UsageError(
            f"no task {name}; there are {', '.join(task_names())}, or give a YAML file"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_problem(error)}") from None
    source = task.data
    beside = path.parent / source.path
    if data is not None:
        source = DataSource(path=data, split=source.split)
        task = task if isinstance(task, TextTask) else replace(task, examples=None)
    elif beside.exists():
        source = replace(source, path=str(beside))
    return path.stem, replace(task, data=source)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    # The first part names the class that `kind` chose.
    where = ".".join(map(str, first["loc"][1:])) or "kind"
    return f"{where}: {first['msg']}"
