"""What is to be sent, and when. Nothing here knows a network.

plan        all that a load test needs to know before it runs
arrivals    closed loops, open loops, ramps, traces: when requests are due
schedule    the requests of one cell: warm-up, measured part, cool-down
budgets     thought budgets, and mixes of them
prompts     synthetic prompts, and those of files
words       synthetic text of a given number of tokens
lengths     distributions of lengths
seeds       randomness that depends on the seed and a purpose alone
"""
