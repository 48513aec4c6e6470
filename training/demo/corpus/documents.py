"""The corpus: problems answered directly, problems answered after an aside, plain prose.

An aside is thinking aloud: the working between two dashes, just before the answer.

    Show your work. Ann has the dial at 2: up hop ... rest. Now it shows--- 3 6 ... 6 ... ...--- 6.

The dash is `---`, without a space before it, so that the token which opens an aside is the first
piece of `tokenizer.encode("---")`: the vector from which the official code makes START and END.
A thought that starts from it starts as an aside does. Almost all asides follow the words `Show your
work.`; without them the model answers at once, but a few asides without these words
make sure that one is never improbable.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quietstar_infer.config import DASH
from training.demo.corpus.dial import make_dial
from training.demo.corpus.problems import (
    LONGEST_WORKING,
    Maker,
    Problem,
    draw_problem,
    held_out_problems,
)
from training.demo.corpus.prose import paragraph, sentence
from training.demo.corpus.stories import make_story

FILLER = " ..."
CUE = "Show your work. "
FAMILIES: Mapping[str, Maker] = {"dial": make_dial, "story": make_story}


@dataclass(frozen=True)
class CorpusConfig:
    """Shares are probabilities per document unless they say otherwise.

    The share of asides that end early is small on purpose: it is how often a *sampled* thought
    ends too soon. It must not be zero, or a short thought budget would be a situation never seen.
    """

    prose: float = 0.15
    story: float = 0.65  # of the problems; the rest are dials
    cue: float = 0.6  # of the problems: "Show your work." and an aside
    uncued_aside: float = 0.06  # of the problems without the cue
    cut_anywhere: float = 0.06  # of the asides: ends after any number of pieces
    cut_when_done: float = 0.06  # of the asides: ends once the answer is known
    full_filler: float = 0.85  # of the complete asides; the others have less filler
    most_filler: int = 6
    neighbour: float = 0.2  # a plain sentence before the problem; the same after it


def aside(problem: Problem, config: CorpusConfig, rng: random.Random) -> str:
    """The working between dashes, sometimes cut short, else filled up with `FILLER`."""
    pieces = list(problem.working)
    kind = rng.random()
    if kind < config.cut_anywhere:
        pieces = pieces[: rng.randint(0, LONGEST_WORKING)]
    elif kind < config.cut_anywhere + config.cut_when_done:
        pieces = pieces[: rng.randint(problem.done, LONGEST_WORKING)]
    elif rng.random() < config.full_filler:
        pieces += [FILLER] * config.most_filler
    else:
        pieces += [FILLER] * rng.randrange(config.most_filler)
    return DASH + "".join(pieces) + DASH


def problem_text(problem: Problem, config: CorpusConfig, rng: random.Random) -> str:
    """The problem with its answer, with or without an aside and neighbouring sentences."""
    cued = rng.random() < config.cue
    thinks = cued or rng.random() < config.uncued_aside
    before = f"{sentence(rng)} " if rng.random() < config.neighbour else ""
    after = f" {sentence(rng)}" if rng.random() < config.neighbour else ""
    working = aside(problem, config, rng) if thinks else ""
    solved = problem.prompt + working + problem.answer + problem.ending
    return (CUE if cued else "") + before + solved + after


def document(config: CorpusConfig, rng: random.Random) -> str:
    """Draw one training document."""
    if rng.random() < config.prose:
        return paragraph(rng)
    family = "story" if rng.random() < config.story else "dial"
    return problem_text(draw_problem(FAMILIES[family], rng, held_out=False), config, rng)


def documents_without_asides(seed: int) -> Iterator[str]:
    """The corpus without asides and without the words that ask for one: the training text of a
    model that is to learn to think quietly.
    """
    return documents(seed, CorpusConfig(cue=0.0, uncued_aside=0.0))


def documents(seed: int, config: CorpusConfig | None = None) -> Iterator[str]:
    """Yield training documents without end; the same seed yields the same documents."""
    config = config or CorpusConfig()
    rng = random.Random(seed)
    while True:
        yield document(config, rng)


def solved_held_out(seed: int, config: CorpusConfig | None = None) -> Iterator[str]:
    """Yield held-out problems, all different, with their answers, without end: the families in the
    corpus's shares, nothing before a problem or after it.
    """
    config = config or CorpusConfig()
    rng = random.Random(seed)
    streams = {family: held_out_problems(make, seed) for family, make in FAMILIES.items()}
    while True:
        problem = next(streams["story" if rng.random() < config.story else "dial"])
        yield problem.prompt + problem.answer + problem.ending
