"""One request and its answer, and what a server is.

requests    a place in the schedule becomes the body of a request
exchange    sends it and reads its answer
sse         the events of a stream
answer      what has arrived, and whether it is what was asked for
probe       what a server is and can count, before it is loaded
tokens      how many tokens a text has
counters    the server's own metrics
"""
