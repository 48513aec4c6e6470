"""The generated corpus.

documents.py    documents: problems, with or without an aside, and plain text
problems.py     what a problem is, and which problems are held out
dial.py         problems of one family: operations on a dial
stories.py      problems of the other family: a week of gains and losses
prose.py        plain sentences
people.py       the people in all of them
"""
