"""Sampling thought tokens with noise that depends on (seed, position, step) and on nothing else.

A thought has to come out the same whoever shares the batch, after a preemption, and on every
tensor-parallel rank. A generator with a state cannot promise that without bookkeeping, so the noise
is a function: each vocabulary entry's random bits are a hash of the request's seed, the position of
the text token that is thought about, the step within the thought, and the entry's id.

Shapes: N rows, V vocabulary.
"""

import hashlib

import torch

_MASK_32 = 0xFFFFFFFF
_GOLDEN_RATIO_32 = 0x9E3779B9


def seed_from_text(text: str) -> int:
    """A 63-bit seed for a request that has none of its own, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def gumbel_noise(
    seed_N: torch.Tensor, position_N: torch.Tensor, step_N: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """Standard Gumbel noise, (N, V) float32, a pure function of its integer arguments (each (N,),
    int64).

    Values lie in [-2.9, 17.4]: a uniform number of 24 bits, the resolution of float32, is behind
    each.
    """
    low_N, high_N = _row_keys(seed_N, position_N, step_N)
    entry_V = torch.arange(vocab_size, device=seed_N.device, dtype=torch.int64)
    bits_NV = _to_int32(entry_V * _GOLDEN_RATIO_32) ^ low_N[:, None]
    bits_NV = _scramble(bits_NV)
    bits_NV ^= high_N[:, None]
    bits_NV = _scramble(bits_NV)
    uniform_NV = (_shift_right(bits_NV, 8).to(torch.float32) + 0.5) * 2.0**-24
    # -log(1 - u) is exponential; small u, the winning side of an argmax, keeps its full precision.
    return uniform_NV.neg_().log1p_().neg_().log_().neg_()


def choose_thought_token(
    logits_NV: torch.Tensor, temperature_N: torch.Tensor, noise_NV: torch.Tensor
) -> torch.Tensor:
    """Token ids, (N,): argmax(logits + T·noise).

    With Gumbel noise this is an exact draw from softmax(logits / T); at T = 0 it is the greedy
    choice. The official code draws at T = 1, also in evaluation. START and END must already be at
    -inf in the logits.
    """
    return torch.addcmul(logits_NV.float(), temperature_N[:, None], noise_NV).argmax(dim=-1)


def mask_meta_tokens(logits: torch.Tensor, meta_token_ids: tuple[int, int]) -> torch.Tensor:
    """Put START and END at -inf, in place: they are never said and never thought, only fed. (...,
    V).
    """
    for token_id in meta_token_ids:
        logits[..., token_id] = -torch.inf
    return logits


def _row_keys(
    seed_N: torch.Tensor, position_N: torch.Tensor, step_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two 32-bit keys per row, each scrambled with all of (seed, position, step)."""
    keys = []
    for salt in (0x243F6A88, 0x85A308D3):
        key_N = _to_int32(seed_N & _MASK_32) ^ _to_int32(torch.full_like(seed_N, salt))
        for word_N in ((seed_N >> 32) & _MASK_32, position_N, step_N):
            key_N = _scramble(key_N) ^ _to_int32(word_N * _GOLDEN_RATIO_32)
        keys.append(_scramble(key_N))
    return keys[0], keys[1]


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit integers without statistical bias worth naming (xorshift-multiply)."""
    x = x ^ _shift_right(x, 16)
    x *= 0x7FEB352D
    x ^= _shift_right(x, 15)
    x *= _signed_32(0x846CA68B)
    x ^= _shift_right(x, 16)
    return x


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift; torch's own is arithmetic on signed integers."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _to_int32(x: torch.Tensor) -> torch.Tensor:
    """The low 32 bits of int64 values, as int32."""
    low = x & _MASK_32
    return torch.where(low > 0x7FFFFFFF, low - 0x100000000, low).to(torch.int32)


def _signed_32(x: int) -> int:
    return x - 0x100000000 if x > 0x7FFFFFFF else x
