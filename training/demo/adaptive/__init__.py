"""Always thinking beside thinking only where it pays, on the demonstration's held-out problems.

measurement.py    right answers, losses and passes, by budget and threshold
table.py          the same at the default budget, as a table
plot.py           right answers against passes per token
"""
