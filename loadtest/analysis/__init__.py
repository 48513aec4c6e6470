"""From records to figures. Nothing here sends, writes or prints.

latencies   the latencies of a request, by name
percentiles nearest ranks, where the sample supports them
intervals   confidence intervals: shares, repeats, differences
levels      service levels, and whether they hold
figures     the figures of a cell
named       every figure by one name
summary     a run's cells as rows, with repeats
price       what a thought token costs, and what it buys
timeline    a cell in the course of time
search      the highest rate that keeps a service level
units       numbers for people
"""
