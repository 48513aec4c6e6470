"""Admission: which requests are served, for how long, and which are refused.

queue.py       requests in flight, counted in requests and passes; Retry-After of those refused
cost.py        what a request costs, in passes: at most, and really
estimates.py   what a request with a gate is expected to cost
time_limit.py  how long one request may take
options.py     the command line's options about limits
"""
