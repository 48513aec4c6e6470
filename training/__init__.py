"""Training code: a corpus that it generates, a tokenizer, a trunk and its checkpoint."""
