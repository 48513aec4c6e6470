"""What is written and shown.

results.py   the results folder: JSON, JSONL, CSV
watch.py     watchers of a running test; one of them writes the results
terminal.py  the live view, and the tables at the end
table.py     the summary as rows of text
verdict.py   the answer in one sentence
report.py    the HTML report
plots.py     the plots in it
compare.py   runs side by side
"""
