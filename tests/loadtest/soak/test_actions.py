"""What the clients of a soak do."""

from itertools import islice

from loadtest.soak.actions import ActionKind, ActionPlan


def plan() -> ActionPlan:
    return ActionPlan("model", max_budget=8, shows_thoughts=True, seed=3)


def test_actions_depend_on_the_seed_and_the_client_only() -> None:
    first, again = plan(), plan()
    assert first.known == again.known
    assert [*islice(first.of_client(1), 50)] == [*islice(again.of_client(1), 50)]
    assert [*islice(first.of_client(1), 50)] != [*islice(first.of_client(2), 50)]


def test_every_client_does_everything() -> None:
    assert {action.kind for action in islice(plan().of_client(1), 500)} == set(ActionKind)
