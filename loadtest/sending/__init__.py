"""A whole plan, sent: the main process runs cell by cell, worker processes send.

runner      from a plan to its cells
pool        the worker processes, seen from the main one
worker      a worker process: an event loop at the end of a pipe
shift       one worker's share of one cell
cells       a cell, made of what the workers have told
health      whether the client keeps up
interrupts  Ctrl-C, noted instead of raised
progress    what a watcher is told
"""
