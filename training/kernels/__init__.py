"""What keeps time and memory of a training step low; nothing here knows the algorithm.

attention.py                   attention of paths over text and themselves, in chunks of positions
flash_attention.py             the same by flash attention kernels, on a GPU
thought_attention.py           both as an attention implementation of transformers, with kept KV
cross_entropy.py               the language-model head in chunks, without keeping logits
softmax.py                     softmax and log-sum-exp in few passes over the logits
activation_checkpointing.py    what the backward pass recomputes
merged_lora.py                 linear layers with LoRA as one product each
malloc_trim.py                 returns freed memory to the operating system
"""
