"""The rows of a batch that feed drafts, and which of these were right.

Shapes: D drafts of a row, U tokens of a batch behind which one is sampled.
"""

from collections.abc import Sequence
from typing import NamedTuple

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.speculation.drafter import Drafts
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs


class DraftedRow(NamedTuple):
    """A thought that feeds drafts behind a token of its own."""

    request_id: str
    step: ThoughtStep
    own: ThoughtInputs
    drafts: Drafts

    @property
    def num_sampled(self) -> int:
        """Behind how many of its tokens one is sampled: its own and its drafts, but not the one
        that END follows.
        """
        return self.step.num_drafts + (0 if self.step.feeds_end else 1)

    def behind(self, end_token_id: int) -> list[int]:
        """The tokens that come behind its own."""
        tokens: list[int] = self.drafts.token_D.tolist()
        return [*tokens, end_token_id] if self.step.feeds_end else tokens

    @property
    def end_place(self) -> int:
        """Where END is fed, if it is."""
        place: int = self.own.place
        return place + self.step.num_drafts + 1


class VerifiedRow(NamedTuple):
    """A row with drafts after its pass: so many of them were right."""

    drafted: DraftedRow
    accepted: int

    @property
    def reached(self) -> int:
        """The phase that the thought has got to."""
        return self.drafted.step.phase + self.accepted

    @property
    def has_ended(self) -> bool:
        """Whether END was fed behind the whole thought, so that the visible token is sampled."""
        return self.drafted.step.ends_with(self.accepted)

    @property
    def last_input(self) -> ThoughtInputs:
        """Of a thought that has ended: its last token, whose place is the one before END's."""
        step = self.drafted.step
        return self.drafted.own._replace(place=self.drafted.end_place - 1, column=step.budget)


def verify(rows: Sequence[DraftedRow], sampled: Sequence[int]) -> tuple[VerifiedRow, ...]:
    """Compare each row's drafts with what was sampled behind the token before each, of all rows
    (U,).
    """
    verified, start = [], 0
    for row in rows:
        drafts = row.drafts.token_D.tolist()
        accepted = 0
        while accepted < len(drafts) and drafts[accepted] == sampled[start + accepted]:
            accepted += 1
        verified.append(VerifiedRow(row, accepted))
        start += row.num_sampled
    return tuple(verified)


def valid_places(verified: Sequence[VerifiedRow]) -> list[int]:
    """Which of the (U,) sampled tokens are the thoughts' own: those behind right drafts only."""
    start = 0
    places: list[int] = []
    for row in verified:
        places.extend(range(start, start + min(row.accepted + 1, row.drafted.num_sampled)))
        start += row.drafted.num_sampled
    return places
