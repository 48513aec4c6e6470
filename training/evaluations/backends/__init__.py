"""Backends of evaluations. Both compute the same scores.

base.py             what a backend does
local.py            the model in this process
continuations.py    texts continued in this process
expected_gain.py    what thoughts are expected to save, by the checkpoint's gate or without one
http.py             a server's model
"""
