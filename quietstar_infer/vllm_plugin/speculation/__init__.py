"""Speculative thoughts: several tokens of a thought in one pass, and the same thoughts.

What a thought will say next is drafted from what earlier thoughts have said after the same tokens.
A pass feeds the drafts behind the token that it would have fed anyway. After each of them the
thought's own rule, which is a function of logits and noise (`sampling`), says what follows, so that
a draft is right or wrong: the thought goes on behind the last right one, as if each token had had a
pass of its own.

ngrams.py      what thoughts have said so far: after which tokens, which were likely
passes.py      what a pass with drafts feeds, and what came of it: compiled
drafted.py     the thoughts of a whole batch while such passes are run, one after the other
speculator.py  all of that, on what a worker keeps of its thoughts
progress.py    what the scheduler learns of it with an engine step's output
policy.py      how many drafts pay: by what passes take and how often drafts are right
"""
