"""Completions and chats with thoughts, on vLLM's own serving classes.

The way of a request: requests/ parses it, generation.py validates and admits it and follows it to
its end, completions.py or chat.py has vLLM serve it, thoughts.py adds what was thought.

engine_outputs.py     what is changed of the engine's outputs
failed_generation.py  requests that fail in the engine, which goes on with the others
error_responses.py    responses to refused requests, in OpenAI's error shape
service.py            what all endpoints share: engine, queue, limits
generation.py         one request in flight
engine_client.py      the engine's client as one request in flight uses it
tokenization.py       long texts on their way to the tokenizer, `/tokenize` and `/detokenize`
scoring.py            log-probabilities of a prompt with a thought before each token
usage.py              what one request has spent: tokens, thoughts, passes
thoughts.py           the thoughts of one request, from the workers to the response
streaming.py          streamed chunks, completed with thoughts
serving_base.py       what completions.py and chat.py share
completions.py        `/v1/completions`
chat.py               `/v1/chat/completions`
cancellation.py       cancels the handler of a route when its client leaves
"""
