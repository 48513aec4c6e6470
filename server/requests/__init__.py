"""Requests: how they are parsed, and which are refused.

schemas.py            requests and responses beyond vLLM's own; pure pydantic
thought_fields.py     our request fields: parsing, and where they may stand
thought_headers.py    our request fields as headers, for proxies
aliases.py            names of the model with settings of their own
foreign_fields.py     fields of other servers and clients that mean one of ours
validation.py         what a server refuses of a well-formed request
bad_words.py          words that must not be said, as tokens
token_constraints.py  which tokens a request's fields leave to sample
json_schemas.py       schemas as xgrammar can follow them
validation_errors.py  what pydantic finds wrong with a request, in one sentence
"""
