"""From records to figures. Nothing here sends, writes or prints.

latencies.py    the latencies of a request, by name
percentiles.py  nearest ranks, where the sample supports them
intervals.py    confidence intervals: shares, repeats, differences
levels.py       service levels, and whether they hold
figures.py      the figures of a cell
failures.py     why requests failed
named.py        all figures by their names
summary.py      a run's cells as rows, with repeats
settings.py     what rows and plots are sorted by: budget and threshold
price.py        what a thought token costs
pareto.py       what it buys: accuracy against cost
steps.py        the steps of a ramp, and the highest rate that held
timeline.py     a cell over time
search.py       the highest rate that keeps a service level
units.py        numbers with units, as text
"""
