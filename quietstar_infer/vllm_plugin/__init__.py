"""Continuous thought batching inside vLLM.

families.py    which trunks can think, by the checkpoint's `model_type`
options.py     from a user's options to vLLM's engine arguments, and back in every process
model.py       the trunk with mixing head and meta-token embeddings
step.py        what the scheduler tells the runner about a thought: phase, budget, index
scheduler.py   a thought as a prefill chunk that does not advance
rows.py        index arithmetic of one batch's thinking rows
memory.py      what is kept on the device between two passes of a thought
records.py     what requests thought, for those that asked
metrics.py     what thinking cost, for the server's metrics
runner.py      the thought passes in vLLM's model runner
worker.py      what the server can ask a worker; cpu_worker.py and cuda_worker.py run it
"""
