"""A soak: minutes or hours of everything that clients do, and whether the server stays correct.

Measured requests with thoughts of several lengths arrive in bursts and are reported like those of
any run. Beside them, clients stream or do not, leave, send bad requests, and repeat requests whose
answers are known. At the end the memory of the server is compared with that at the start.

command.py     `python -m loadtest soak`
background.py  the clients in a thread of their own, while the main thread measures
actions.py     what the clients do, drawn at random from a seed
clients.py     the clients, which do it and check the answers
tally.py       counts of requests and faults, and whether the server passed
memory.py      the server's process and its memory, where it runs on this machine
"""
