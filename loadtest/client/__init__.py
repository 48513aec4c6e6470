"""One request and its answer, and what is found out about a server.

requests.py  the requests of a cell, each by its index in the schedule
exchange.py  sends a request and reads its answer
sse.py       server-sent events
channels.py  what of an answer is reasoning, and what is visible
answer.py    a streamed answer: its tokens, and what is wrong with it
probe.py     model, thought budgets and token counts of a server, before it is loaded
tokens.py    counts the tokens of a text
counters.py  the server's own metrics
"""
