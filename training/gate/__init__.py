"""Fits thought gates: which thoughts are worth having, told before they are thought.

cli.py          `gate` on the command line
command.py      from documents to the written gate and its report
settings.py     how a gate is fitted
labels.py       what thoughts are worth at every position of some documents
fit.py          fits a gate to these labels
tradeoff.py     gain kept against passes, by threshold; the choice of thresholds; calibration
report.py       the report as numbers and in Markdown
gate_plot.py    its plot
gate_files.py   puts a gate into a checkpoint
"""
