"""What is written and shown.

results     the results folder: JSON, JSONL, CSV
watch       who is told while a test runs; the one who writes it down
terminal    the live view, and the tables at the end
table       the summary as rows of text
report      the HTML report, with `plots` in it
compare     runs side by side
"""
