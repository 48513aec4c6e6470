"""The generated corpus.

documents.py    documents: problems, with or without an aside, and plain text
problems.py     what a problem is, and which problems are held out
dial.py         problems of one family: operations on a dial
stories.py      problems of the other family: a week of gains and losses
spelled.py      stories with numbers in words, for pretrained models
mixture.py      spelled problems among real text, and what is held out of both
prose.py        plain sentences
people.py       the people in all of them
"""
