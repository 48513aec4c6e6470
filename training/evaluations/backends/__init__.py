"""Backends of evaluations. Both compute the same scores.

base.py             what a backend does
local.py            the model in this process
continuations.py    texts continued in this process
http.py             a server's model
"""
