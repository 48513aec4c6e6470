"""What passes with drafts feed, and what comes of them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from quietstar_infer.vllm_plugin.speculation.ngrams import NgramTable
from quietstar_infer.vllm_plugin.speculation.passes import (
    THOUGHT,
    DraftRecord,
    FedTokens,
    PassOutcome,
    lay_out,
    settle,
)

START, END, TEXT = 30, 31, 29
VOCABULARY = 40
THOUGHT_TOKENS = [3, 1, 4, 7, 5, 9, 2, 6]
BUDGET = len(THOUGHT_TOKENS)


class Drafting:
    """Greedy thoughts, each of them `THOUGHT_TOKENS`, in one slot each."""

    def __init__(self, rows: int = 1, room: int = 99, *, are_borne: bool = True) -> None:
        self.table, self.record = NgramTable.empty(), DraftRecord.empty(VOCABULARY)
        self.record.is_borne_V[:] = are_borne
        self.fed = FedTokens.for_at_most(room, rows)
        self.token_SC = np.zeros((rows, BUDGET + 2), dtype=np.int32)
        self.token_SC[:, 0] = START
        self.thought_R = np.zeros(rows, dtype=THOUGHT)
        self.begin()

    def begin(self, known: int = 0, text_token: int = -1, budget: int = BUDGET) -> None:
        self.thought_R["slot"] = np.arange(len(self.thought_R))
        self.thought_R["position"] = 100
        self.thought_R["budget"], self.thought_R["known"] = budget, known
        self.thought_R["text_token"], self.thought_R["has_ended"] = text_token, False
        self.token_SC[:, 1:] = 0
        self.token_SC[:, 1 : known + 1] = THOUGHT_TOKENS[:known]

    def lay_out(self, max_drafts: int = 99, least_chance: float = 0.0) -> list[list[int]]:
        """What each row feeds."""
        number, _ = lay_out(
            self.thought_R,
            self.table,
            self.record,
            self.token_SC,
            self.fed,
            END,
            max_drafts,
            least_chance,
        )
        length_R = self.fed.length_R[: len(self.thought_R)]
        assert number == length_R.sum()
        rows = np.split(self.fed.token_N[:number], length_R.cumsum()[:-1])
        return [row.tolist() for row in rows]

    def settle(self, says: list[int] | None = None) -> PassOutcome:
        """Sample behind each token what comes next in these thoughts."""
        says = says or THOUGHT_TOKENS
        number = self._num_sampled()
        column_U = self.fed.input_U8[:number, 3]
        sampled_U = np.array([says[column] for column in column_U], dtype=np.int32)
        logits_UV = np.zeros((number, VOCABULARY), dtype=np.float32)
        logits_UV[np.arange(number), sampled_U] = 9.0
        for (_, _, slot, column, *_), token in zip(
            self.fed.input_U8[:number].tolist(), sampled_U.tolist(), strict=True
        ):
            self.token_SC[slot, column + 1] = token
        return PassOutcome(
            *settle(
                self.thought_R,
                self.table,
                self.record,
                self.token_SC,
                self.fed,
                sampled_U,
                logits_UV,
            )
        )

    def _num_sampled(self) -> int:
        going_on = self.thought_R[~self.thought_R["has_ended"]]
        completes = going_on["known"] + going_on["num_drafts"] == going_on["budget"]
        return int((going_on["num_drafts"] + 1 - completes).sum())

    def think(self, **options: Any) -> int:
        """Whole thoughts; returns how many passes they took."""
        passes = 0
        while not self.thought_R["has_ended"].all():
            self.lay_out(**options)
            self.settle()
            passes += 1
        return passes


def positions(drafting: Drafting) -> npt.NDArray[np.int64]:
    return drafting.fed.position_N[: int(drafting.fed.length_R.sum())]


def test_without_anything_to_draft_from_each_token_has_a_pass() -> None:
    drafting = Drafting()
    fed = []
    while not drafting.thought_R["has_ended"].all():
        fed += drafting.lay_out()
        drafting.settle()
    assert fed == [[START], *([token] for token in THOUGHT_TOKENS[:-1]), [THOUGHT_TOKENS[-1], END]]


def test_a_thought_that_is_known_takes_one_pass() -> None:
    drafting = Drafting()
    drafting.think()
    drafting.begin(text_token=TEXT)
    assert drafting.lay_out() == [[TEXT, START, *THOUGHT_TOKENS, END]]
    assert positions(drafting).tolist() == list(range(100, 100 + BUDGET + 3))
    assert drafting.settle() == PassOutcome(BUDGET, BUDGET, BUDGET, 1)
    # END lies behind its own token and the drafts.
    assert drafting.fed.token_N[drafting.thought_R["place"] + BUDGET + 1] == END


def test_a_thought_goes_on_behind_the_last_right_draft() -> None:
    drafting = Drafting()
    drafting.think()
    drafting.begin()
    drafting.lay_out()
    other = [*THOUGHT_TOKENS[:4], 8, 8, 8, 8]
    assert drafting.settle(other) == PassOutcome(BUDGET, 4, 5, 0)
    assert drafting.thought_R["known"].tolist() == [5]
    assert drafting.token_SC[0, :6].tolist() == [START, *other[:5]]
    # It is fed from there on.
    drafting.lay_out(max_drafts=0)
    assert positions(drafting).tolist() == [100 + 1 + 5]


def test_no_more_than_asked_for_and_than_there_is_room_for() -> None:
    drafting = Drafting(rows=2, room=3 * 2 + 5)
    drafting.think()
    drafting.begin()
    assert drafting.lay_out(max_drafts=2) == 2 * [[START, *THOUGHT_TOKENS[:2]]]
    assert drafting.lay_out() == [[START, *THOUGHT_TOKENS[:5]], [START]]


def test_as_far_as_they_are_likely_enough() -> None:
    drafting = Drafting()
    drafting.think()
    drafting.begin()
    # Before anything is known, each is as likely right as wrong.
    assert drafting.lay_out(least_chance=0.2) == [[START, *THOUGHT_TOKENS[:2]]]
    for _ in range(50):
        drafting.begin()
        drafting.think()
    drafting.begin()
    assert drafting.lay_out(least_chance=0.2) == [[START, *THOUGHT_TOKENS, END]]
    for number in range(600):
        drafting.begin()
        drafting.lay_out()
        # The model always says another token than last time.
        drafting.settle([10 + number % 2, *THOUGHT_TOKENS[1:]])
    drafting.begin()
    assert drafting.lay_out(least_chance=0.2) == [[START]]


def test_a_token_that_no_thought_has_fed_is_not_drafted() -> None:
    """It might overflow."""
    drafting = Drafting(are_borne=False)
    for _ in range(4):
        drafting.lay_out()
        drafting.settle()
    # 5 has been sampled, and was never fed.
    drafting.begin()
    assert drafting.lay_out() == [[START, *THOUGHT_TOKENS[:3]]]


def test_a_given_thought_is_fed_whole_and_teaches_nothing_of_drafts() -> None:
    drafting = Drafting()
    drafting.begin(budget=4)
    drafting.token_SC[0, 1:5] = [7, 7, 7, 7]
    drafting.thought_R["num_given"] = 4
    before = drafting.record.tested_D.copy()
    assert drafting.lay_out(max_drafts=3) == [[START, 7, 7, 7]]
    assert drafting.lay_out(least_chance=1.0) == [[START, 7, 7, 7, 7, END]]
    assert drafting.settle([7, 7, 7, 7]) == PassOutcome(4, 4, 4, 1)
    assert drafting.record.tested_D.tolist() == before.tolist()


def test_rows_that_have_ended_feed_end_again_and_are_as_they_were() -> None:
    drafting = Drafting(rows=3)
    drafting.think()
    drafting.begin()
    drafting.thought_R["known"][1] = BUDGET  # t_b, and END
    drafting.token_SC[1, 1:-1] = THOUGHT_TOKENS
    drafting.lay_out(max_drafts=0)
    assert drafting.settle() == PassOutcome(0, 0, 2, 1)
    ended = drafting.thought_R[1].copy()
    assert drafting.lay_out(max_drafts=1) == [THOUGHT_TOKENS[:2], [END], THOUGHT_TOKENS[:2]]
    assert positions(drafting)[2] == 100 + 1 + BUDGET + 1
    assert drafting.settle() == PassOutcome(2, 2, 4, 0)
    assert drafting.thought_R[1] == ended
