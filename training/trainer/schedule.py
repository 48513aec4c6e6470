"""The learning rates of a run, as factors of those in the recipe."""

from training.config import Optimisation


def scheduled_rate(steps_before: int, settings: Optimisation, end: int | None) -> float:
    """The factor of all learning rates in the step that follows so many; `end` is the step at which
    they are 0 (`training.trainer.recipe.rates_end`), None for a constant schedule.
    """
    warmup = settings.warmup_steps
    if steps_before < warmup:
        # From 0 the first step changes nothing; else the rates rise to all of them in `warmup`.
        return (steps_before + (not settings.warmup_from_zero)) / warmup
    if end is None:
        return 1.0
    return max(0.0, (end - steps_before) / max(1, end - warmup))
