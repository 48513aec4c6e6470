"""The demonstration model, from nothing (docs/demonstration.md). No other package imports this one
but the command line.

cli.py                 its commands
recipe.py              everything that decides what is trained and measured
corpus/                the generated text that it learns from
tokenizer.py           a tokenizer in which every word of the corpus is one token
base_model.py          the base model: its shape and its training
base_model_build.py    from corpus to the base model's checkpoint
checkpoint.py          writes the base model in the official layout
build.py               base model, thinkers and controls of several seeds
measure.py             what is measured of a thinker
accuracy.py            right answers after quiet thoughts, by budget
token_statistics.py    losses and mixing weights, by kind of token
forced_thoughts.py     right answers of the base model after thoughts in the visible text
adaptive/              always thinking beside thinking only where it pays
served_accuracy.py     right answers of a served model
report.py              tables of the measurements
plots.py               plots of the measurements
card.py                model cards
problem_files.py       held-out problems as files for evaluations and load tests
"""
