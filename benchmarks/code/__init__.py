"""Measures of the source code itself: `python -m benchmarks.code [FOLDER] [--against FOLDER]`.

cli.py         the command
sources.py     the Python files of a checkout, parsed
functions.py   how long functions are, and whether they are annotated
names.py       public names, and those defined in more than one file
circles.py     modules that import each other
duplicates.py  runs of equal lines
measures.py    all measures of a package, as rows of a table
"""
