"""The passes of thoughts with drafts."""

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.speculation.progress import ThoughtProgress
from quietstar_infer.vllm_plugin.speculation.steps import steps_after, with_drafts

STEPS = {"a": ThoughtStep(2, 8, 0), "b": ThoughtStep(0, 4, 0), "gate": ThoughtStep(-1, 8, 0, True)}


def drafts_of(numbers: dict[str, int], room: int) -> list[int]:
    return [step.num_drafts for step in with_drafts(STEPS, numbers, room).values()]


def test_no_more_drafts_than_are_left_of_the_thought() -> None:
    assert drafts_of({"a": 3, "b": 9, "gate": 5}, room=100) == [3, 4, 0]
    assert drafts_of({}, room=100) == [0, 0, 0]


def test_no_more_drafts_than_the_batch_has_room_for() -> None:
    assert drafts_of({"a": 6, "b": 4}, room=10) == [6, 2, 0]
    assert drafts_of({"a": 6, "b": 4}, room=7) == [6, 0, 0]
    assert drafts_of({"a": 6, "b": 4}, room=1) == [0, 0, 0]
    assert drafts_of({"a": 6, "b": 4}, room=-3) == [0, 0, 0]


def test_a_pass_with_drafts_comes_after_what_they_have_reached() -> None:
    drafted = with_drafts({"a": STEPS["a"]}, {"a": 3}, room=10)
    after = steps_after(drafted, ThoughtProgress({"a": 4}, {}))
    assert after == {"a": ThoughtStep(5, 8, 0)}


def test_the_tokens_of_a_pass_with_drafts() -> None:
    middle = ThoughtStep(2, 8, 0).with_drafts(3)
    assert (middle.num_extra_tokens, middle.feeds_end, middle.is_undecided) == (3, False, False)
    whole = ThoughtStep(0, 4, 0).with_drafts(4)
    # START, four drafts, END behind x_p.
    assert (whole.num_extra_tokens, whole.feeds_end, whole.is_undecided) == (6, True, True)
    assert whole.ends_with(4)
    assert not whole.ends_with(3)
    assert not middle.ends_with(3)
