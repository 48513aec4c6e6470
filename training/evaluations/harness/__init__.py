"""Tasks of lm-evaluation-harness: start it with `--include_path training/evaluations/harness`.

rows.py    the rows of the tasks, which are the YAML files beside it
"""
