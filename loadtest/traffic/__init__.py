"""What is to be sent, and when. Nothing here uses the network, but for data sets of the hub.

plan.py        settings of a whole load test
datasets.py    rows of data sets: of local files, and of the hub
arrivals.py    closed loops, open loops, ramps, traces: when requests are due
schedule.py    the requests of one cell: warm-up, measured part, cool-down
budgets.py     thought budgets, and mixes of them
thresholds.py  thought thresholds, each with every budget
prompts.py     synthetic prompts, and those of files
words.py       synthetic text of a given number of tokens
lengths.py     distributions of lengths
seeds.py       random generators that depend on the seed and a purpose alone
"""
