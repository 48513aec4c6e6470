"""The algorithm, as in the paper (Zelikman et al., 2024, section 4).

training_step.py     one training step, from a batch to its loss
reference_step.py    the same numbers, slow and simple, with one dense mask
model.py             the weights: base model, START and END, mixing head
weights.py           the weights that a run starts from
loading.py           a model and its tokenizer from a folder, a GGUF file, an adapter or the hub
gguf_file.py         base models from GGUF files
adapter.py           LoRA adapters with their thought parts, in peft's format
batch.py             texts, padding and targets
layout.py            positions and mask where text and thoughts are one sequence
rollout.py           samples the thoughts of all positions of a text in training
decode.py            the thought decoder of training, evaluations and demonstration
sampling.py          how thought tokens are sampled in training
losses.py            likelihoods, rewards, advantages, the loss
outputs.py           what a training step returns
"""
