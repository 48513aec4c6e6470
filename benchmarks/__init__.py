"""Benchmarks: what the code in the other packages costs. No package imports this one.

balancing.py  `python -m benchmarks.balancing`: which server gets a request (docs/scale.md)
first_minute.py  `python -m benchmarks.first_minute`: a server's first minute beside its second
tables.py  Markdown tables
code/      `python -m benchmarks.code`: sizes, names, copies and circles in the source code
engine/    `python -m benchmarks.engine`: thinking beside stock vLLM (docs/performance.md)
training/  `python -m benchmarks.training`: a training step, and scoring (docs/training.md)
"""
