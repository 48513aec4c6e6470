"""Tasks: `NAME.yaml` is a task's definition, `NAME.jsonl` the rows of the demonstration's tasks.

definitions.py    kinds of tasks, and how their YAML files are read
rows.py           the rows of a task's data set
prompts.py        how a question is put: after examples, as a chat
passages.py       rows as token ids, and which of the tokens are scored
"""
