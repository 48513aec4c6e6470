"""Speculative thoughts: several tokens of a thought in one pass, and the same thoughts.

What a thought will say next is drafted from what earlier thoughts have said after the same tokens.
A pass feeds the drafts behind the token that it would have fed anyway. After each of them the
thought's own rule, which is a function of logits and noise (`sampling`), says what follows, so that
a draft is right or wrong: the thought goes on behind the last right one, as if each token had had a
pass of its own.

ngrams.py        what thoughts have said so far: after which tokens, which were likely
drafter.py       each request's drafts for its next pass, and how sure they are
verification.py  the rows of a batch that feed drafts, and which of these were right
speculator.py    all of that, on what a worker keeps of its thoughts
steps.py         the passes of thoughts with drafts
progress.py      what the scheduler learns of it with an engine step's output
policy.py        how many drafts pay: by what passes take and how often drafts are right
"""
