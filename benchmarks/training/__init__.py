"""Benchmarks of training: `python -m benchmarks.training COMMAND`.

__main__.py         the entry point
cli.py              the command line
step_cost.py        time and memory of a training step, beside reference step and official code
measurement.py      one measurement of a training step, in a process of its own
scoring_speed.py    how fast text is scored: all positions at once, or one after another
"""
