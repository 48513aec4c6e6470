"""The paper's evaluations: what thoughts are worth to the prediction of given text, and to answers.

tasks       what is asked (YAML, training/tasks) and the rows of a data set
passages    rows as token ids, with the tokens whose log-probabilities are wanted
routes      who finds them: the model in this process, or a server
outcomes    an item's result at every thought budget
record      results so far, a line per item: what an interrupted evaluation goes on from
summary     means with their intervals; tables, plots and heat maps show them
"""
