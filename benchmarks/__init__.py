"""Benchmarks: what the code in the other packages costs. Each has its own command line.

engine/      `python -m benchmarks.engine`: thinking beside stock vLLM (docs/performance.md)
training/    `python -m benchmarks.training`: a training step, and scoring (docs/training.md)
"""
