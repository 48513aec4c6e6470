"""The worker processes of a thinking engine. CPU and CUDA in files of their own, because importing
vLLM's CPU worker replaces torch's CUDA functions.

base.py      what every platform's worker has in common: what the server can ask of it
cpu.py       worker and model runner on the CPU
cuda.py      worker and model runner on CUDA
executor.py  the executor of one CPU worker in the engine's process, whose multi-step it interrupts
             when a request waits
"""
