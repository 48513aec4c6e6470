"""The paper's evaluations: how thoughts change the prediction of given text, and answers.

cli.py                `evaluate` on the command line
command.py            from its options to a results folder
tasks/                what is asked: definitions (YAML), rows of data sets, passages of token ids
backends/             who computes the scores: the model in this process, or a server
harness/              tasks of lm-evaluation-harness on the same rows
evaluated_model.py    loads the model that is evaluated, and identifies it
runner.py             evaluates the rows that have no result yet
sweep.py              the cells of a sweep: thought budgets crossed with thresholds
control_gain.py       what thoughts gain on text beyond a control
cost.py               what tokens cost: thoughts, thought tokens, passes
outcomes.py           an item's result in every cell
record.py             results so far, a line per item, from which an evaluation is resumed
estimates.py          means with 95 % intervals
summary.py            the measures of a task, and what they cost, by cell
report.py             tables in Markdown
plots.py              measures over the budget, as SVG
cost_plot.py          measures against passes per token, always thinking beside adaptive, as SVG
heat_map.py           a document coloured by what thoughts gained, as HTML
"""
