"""Trains the models that quietstar_infer serves, and evaluates them.

To read first: `thoughts/training_step.py` (the algorithm), `thoughts/model.py` (its weights),
`thoughts/decode.py` (how thoughts are decoded), `trainer/run.py` (a whole run).

__main__.py     `python -m training COMMAND`
cli.py          the command line
config.py       what decides a training step: thoughts, objective, optimisation; three presets
beginning.py    what stands before a text: one rule for training, gates and evaluations
chat.py         chats as text, by the tokenizer's chat template
options.py      command-line options that several commands share
hub.py          names on the Hugging Face hub
output.py       folders and files that commands write
markdown.py     tables in Markdown
errors.py       mistakes of the user, and runs that cannot go on
thoughts/       the algorithm of the paper: model, rollout, training step, decoding
kernels/        attention, cross entropy, activation checkpointing: time and memory of a step
gate/           fits thought gates: python -m training gate
trainer/        recipes, data, and runs with transformers' Trainer, to the exported checkpoint
evaluations/    the paper's evaluations, in process or through a server
demo/           the demonstration model: its corpus, base model, training and measurements
"""
