"""Continuous thought batching inside vLLM.

In the server's process:
options.py          from a user's options to vLLM's engine arguments, and back in every process
architectures.py    which base models can think, by the checkpoint's `model_type`

In the engine's process:
scheduler.py        vLLM's scheduler: a thought is a prefill chunk that makes no progress
alignment.py        which requests wait, so that thoughts of equal budget start together
schedule_plan.py    what the scheduler tells the workers of each thought, with every engine step

In the workers' processes:
workers/            the workers for CPU and CUDA, and the executor that interrupts one
runner.py           vLLM's V1 model runner: where it calls the thought state
multi_step.py       several passes in one engine step
thought_state.py    all there is to a thought on the worker, from its first pass to its last
speculation/        several tokens of a thought in one pass, drafted from what thoughts have said
thought_rows.py     index arithmetic of a batch's thinking rows
slots.py            what is kept on the device between two passes of a thought
thought_sampler.py  the sampler of thought tokens, one compiled operation per pass
logits_processors.py  logits that no token can be sampled from, and tokens that are given
thought_usage.py    how often a request has thought, on its way to the front end
thought_log.py      finished thoughts of requests that asked to see them
metrics.py          what thinking costs, counted for the server's metrics
model.py            vLLM's dense decoders with mixing head and meta-token embeddings
"""
