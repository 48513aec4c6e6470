"""The worker processes that run a thinking model.

base.py      what the server can ask of a worker, on any platform
cpu.py       worker and model runner on the CPU; importing it replaces torch's CUDA functions
cuda.py      worker and model runner on CUDA
executor.py  ends a multi-step of the one CPU worker when a request arrives
"""
