"""Drives a running server for minutes with everything that clients do, and checks what it answers.

`python -m server.soak --help`. Speaks HTTP only, and works on any machine that reaches the server;
on the server's own machine it watches its memory, too.
"""
