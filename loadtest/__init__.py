"""Load tests for any OpenAI-compatible server.

One package per step, from what is to be sent to the report; each imports only those above it:

errors.py      errors that users see as one line
records.py     what is recorded of each request: the contract between sending and reporting
traffic/       what is to be sent, and when
client/        one request and its answer; what is found out about a server
sending/       sends a whole plan, cell by cell, from worker processes
analysis/      from records to figures, intervals and verdicts
reporting/     files, tables, plots, the live view
session.py     a run, from the first request to the report
parser.py      parsers of command lines
options.py     options that several commands have
cli.py         the commands
sweep.py       the command `sweep`: the knee of a server, without a rate to guess
scenarios.py   recipes: command lines as YAML files
soak/          the command `soak`
testserver.py  a server whose every delay is known
capacity.py    the command `capacity`: what the client can send, measured with that server
"""
