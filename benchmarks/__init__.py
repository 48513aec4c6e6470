"""What measures the products, and is no part of them. Nothing imports this package.

code/      measures of the source code itself
engine/    what thinking costs beside stock vLLM, and where the time of an engine step goes
training/  what a training step costs beside dense and official code
"""
