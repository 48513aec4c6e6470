"""Sends a whole plan: the main process runs cell by cell, worker processes send the requests.

runner.py      from a plan to its cells
pool.py        the worker processes, as the main process controls them
worker.py      a worker process: an event loop controlled through a pipe
job.py         one worker's share of one cell
cells.py       makes a cell from the reports of the workers
stops.py       stops a cell that fails too often, or whose server falls behind
health.py      whether the client keeps up
interrupts.py  Ctrl-C, noted instead of raised
progress.py    what watchers of a running load test are told
"""
