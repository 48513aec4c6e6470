"""The table: what thinking costs, as ratios of two things measured in turn in one run.

Noise of the machine affects both sides of a ratio alike: they are measured one after the other,
several times, and the median of the repetitions' ratios counts.

| measure  | numerator | denominator |
|---|---|---|
| pass     | a thought pass: time per visible token at budget 8, / 9 | a decode step of stock vLLM |
|          | the same | stock vLLM's time for as many tokens as are fed in a thought pass |
| official | visible tokens per second | those of a loop that computes everything anew per token |
| company  | time per visible token in a batch half of which thinks | the same where none does |
| arrival  | time to the first token beside 16 requests that think | beside 16 that do not |
| adaptive | time per visible token of texts that are thought about where it pays | at budget 0 |
|          | requests without thoughts beside such | the same where none thinks |
| speculative | time per visible token of texts, with drafts of thoughts where these pay | without |
|          | the same of documents and answers, thought about where it pays | at budget 0 |
|          | the same | thought about at every token, without drafts |
| context  | growth of the time per visible token with the context | that of stock vLLM |

table.py     which lines there are, one by one
settings.py  what is measured, and how often
measured.py  a line of the table
pairs.py     two engines that are measured in turn
texts.py     texts that are thought about
passes.py    a pass beside stock vLLM's step; the official way; contexts
mixed.py     what thoughts cost other requests
adaptive.py  thinking where it pays
drafts.py    drafts of thought tokens
"""
