"""Accuracy against cost, over budgets and thresholds."""

from loadtest.analysis.intervals import Share
from loadtest.analysis.pareto import BY_PASSES, BY_SECONDS, front
from loadtest.analysis.settings import Setting


def test_the_front_leaves_out_dominated_settings() -> None:
    found = front(
        BY_SECONDS,
        {
            Setting("0", None): (0.01, Share(2, 10)),
            Setting("2", None): (0.03, Share(1, 10)),
            Setting("4", 0.1): (0.05, Share(5, 10)),
            Setting("4", 0.0): (0.09, Share(5, 10)),
        },
    )
    assert [(point.setting, point.on_front) for point in found.points] == [
        (Setting("0", None), True),
        (Setting("2", None), False),
        (Setting("4", 0.1), True),
        (Setting("4", 0.0), False),
    ]


def test_the_cheapest_setting_within_a_point_of_the_best_is_named() -> None:
    points = {
        Setting("0", None): (1.0, Share(150, 1000)),
        Setting("12", 0.0): (13.0, Share(1000, 1000)),
        Setting("12", 0.1): (4.5, Share(990, 1000)),
        Setting("12", 0.5): (2.0, Share(989, 1000)),
    }
    found = front(BY_PASSES, points)
    assert found.recommended.setting == Setting("12", 0.1)
    assert found.sentence == (
        "The cheapest setting within 1 point of the best accuracy: b = 12 at 0.1 nats, 99.0% right "
        "for 4.50 passes per visible token; the best is b = 12 at 0 nats, 100.0% right for "
        "13 passes per visible token."
    )


def test_the_best_itself_may_be_the_cheapest_within_a_point() -> None:
    points = {Setting("0", None): (1.0, Share(3, 4)), Setting("2", None): (3.0, Share(3, 4))}
    assert front(BY_PASSES, points).sentence == (
        "The cheapest setting within 1 point of the best accuracy: b = 0, 75.0% right for 1 pass "
        "per visible token."
    )
