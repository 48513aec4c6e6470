"""`/metrics`, in Prometheus's text format: vLLM's metrics, and ours about thinking.

route.py     the route
engine.py    what the engine counted, fetched from its processes at each scrape
queue.py     the work that waits and runs, for load balancers and autoscalers
requests.py  what is observed in this process: tokens, times, refusals
"""
