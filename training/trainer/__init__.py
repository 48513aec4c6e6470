"""Training runs: from a recipe to an exported checkpoint.

run.py                a run from beginning to end
recipe.py             recipes, and how they are read and checked
data.py               texts from files or the hub as token ids
documents.py          rows as documents: text, prompts with answers, chats
build.py              the model that a recipe trains, with or without LoRA
schedule.py           the learning rates by step
arguments.py          transformers' TrainingArguments from a recipe
trainer.py            transformers' Trainer with the training step of Quiet-STaR
metrics.py            the logged metrics of training steps
callbacks.py          progress bar; the watch for collapsed thoughts; other loggers
dry_run.py            what a run would take: pieces, tokens, steps, time, memory
control.py            the same run without thoughts, and what thoughts gained beyond it
thought_samples.py    some thoughts of every evaluation
checkpoint.py         what checkpoints of the official layout have beside weights
export.py             the best checkpoint of a run in the official layout, with its model card
"""
