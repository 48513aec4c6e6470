"""Learning rates by step."""

from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from training.config import OFFICIAL, RECOMMENDED
from training.trainer.schedule import scheduled_rate


def official(scheduled: str, steps: int) -> list[float]:
    """transformers' schedules, which the official code uses."""
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule: LambdaLR = (
        get_linear_schedule_with_warmup(optimizer, 4, 10)
        if scheduled == "linear"
        else get_constant_schedule_with_warmup(optimizer, 4)
    )
    rates = []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("scheduled", "end"), [("linear", 10), ("constant", None)])
def test_as_official(scheduled: str, end: int | None) -> None:
    settings = replace(OFFICIAL.optimisation, warmup_steps=4)
    rates = [scheduled_rate(step, settings, end) for step in range(12)]
    assert rates == pytest.approx(official(scheduled, 12))
    assert rates[0] == 0


def test_recommended_learns_in_its_first_step() -> None:
    settings = replace(RECOMMENDED.optimisation, warmup_steps=4)
    rates = [scheduled_rate(step, settings, 10) for step in range(11)]
    rising, falling = [1 / 4, 1 / 2, 3 / 4, 1], [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]
    assert rates == pytest.approx([*rising, *falling])


def test_without_a_warm_up() -> None:
    settings = replace(RECOMMENDED.optimisation, warmup_steps=0)
    assert [scheduled_rate(step, settings, 2) for step in range(3)] == [1, 0.5, 0]
