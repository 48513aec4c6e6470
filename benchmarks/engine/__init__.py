"""What thinking costs, beside stock vLLM: `python -m benchmarks.engine`.

cli.py            the commands: table, profile, gpu
measures/         `table`: ratios and what they are to reach
profile.py        `profile`: where the time of an engine step goes
gpu.py            `gpu`: milliseconds per pass by batch and budget
engine_handle.py  starts and controls a process with an engine
served_engine.py  such a process: an engine as the server runs it
timed_engine.py   another one: an engine in a single process, whose steps are timed part by part
timers.py         the functions of vLLM and of the plugin that are timed
spec.py           which engine a process is to start
load.py           the requests that an engine is measured with, and the times of their answers
shapes.py         models of random weights, and base models of checkpoints for stock vLLM
official.py       generation as in the official code, for comparison
machine.py        the machine that it all ran on
report.py         table, JSON, plot
"""
