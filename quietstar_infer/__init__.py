"""Quiet-STaR on vLLM: models that think before every visible token.

Plain torch, without vLLM or FastAPI:
checkpoint.py  the official checkpoint layout: tensor names, checks, loading
base_config.py  what a base model's part of config.json must say
base_shapes.py  the shapes of a base model's tensors, as its config.json describes them
config.py      what a checkpoint's files tell about thinking: meta-token ids, embedding mode
mixing.py      the mixing head
gate.py        the thought gate: the expected gain of a thought, known before it
compiled.py    functions of tensors, compiled once and called at the least cost
sampling.py    sampling thought tokens with noise that is a function of seed, position and step
reference.py   the whole algorithm, slow and readable; the engine is measured against it
params.py      a request's thought parameters, and what a server allows
errors.py      errors that a user can mend

With vLLM:
plugin.py      vLLM's entry point
vllm_plugin/   the same algorithm inside vLLM's scheduler and model runner
"""
