"""What thinking costs, beside stock vLLM: `python -m benchmarks.engine`.

cli.py         the commands: table, profile, gpu
shapes.py      models of random weights, made on the spot, and plain trunks for stock vLLM
load.py        what an engine is asked, and when it answered
engine.py      a process with an engine as the server runs it; side.py holds its other end
official.py    the official way to generate, readable, for comparison
measures.py    the table: five ratios and what they are to reach
timers.py      where the time of an engine step goes; inside.py is the process that is timed,
               profile.py the table made of it
gpu.py         milliseconds per pass by batch and budget
machine.py     what it all ran on
report.py      tables, JSON, plot
"""
