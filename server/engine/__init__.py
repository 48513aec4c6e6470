"""The engine of a server: its options, its start, and why it may fail.

engine.py         a running engine, and what was thought and counted in its workers
remote_replicas.py  replicas on other machines: that they come up, are the same, and are there
headless.py       a node without an HTTP server, whose replicas serve another machine's
backlog.py        the work that waits and runs, in passes
usage_ledger.py   how often requests have thought, as the engine reports it
startup.py        vLLM's engine arguments, prepared for thinking
option_checks.py  options that would be checked only after the start
cpu_defaults.py   computation type and cache size on a CPU
serving_parts.py  what vLLM's serving classes are constructed from
reminder.py       says that a start takes long
grammars.py       checks the grammars of requests, within a size and a time
grammar_process.py  the process in which it compiles them
pulse.py          whether it still replies
failures.py       why an engine did not start, in one line
child_process.py  what runs first in each process of the engine
"""
