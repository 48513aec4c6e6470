"""Sampling thought tokens with noise that depends on (seed, position, step) and on nothing else.

A thought has to be the same in any batch, after a preemption, and on every tensor-parallel rank. A
generator with a state cannot give that without bookkeeping, so the noise is a function: each
vocabulary entry's random bits are a hash of the request's seed, the position of the text token that
is thought about, the step within the thought, and the entry's id.

Shapes: N rows, V vocabulary.
"""

import hashlib

import torch

GOLDEN_RATIO = 0x9E3779B9
MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
SALTS = (0x243F6A88, 0x85A308D3)


def seed_from_text(text: str) -> int:
    """A 63-bit seed for a request that has none of its own, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def row_keys(seed_N: torch.Tensor, position_N: torch.Tensor, step_N: torch.Tensor) -> torch.Tensor:
    """Two 32-bit keys per row, (N, 2) int32, each scrambled with all of (seed, position, step),
    int64.
    """
    keys = []
    for salt in SALTS:
        key_N = seed_N.to(torch.int32) ^ _signed(salt)
        for word_N in (seed_N >> 32, position_N, step_N):
            key_N = _scramble(key_N) ^ (word_N.to(torch.int32) * _signed(GOLDEN_RATIO))
        keys.append(_scramble(key_N))
    return torch.stack(keys, dim=-1)


def uniform_numbers(bits: torch.Tensor) -> torch.Tensor:
    """float32 in (0, 1) from the upper 24 of 32 random bits, its resolution."""
    # The largest would be rounded up to 1, whose noise is infinite: at temperature 0 not a number.
    return ((_shift_right(bits, 8).to(torch.float32) + 0.5) * 2.0**-24).clamp_(max=1 - 2.0**-24)


def gumbel_noise(key_N2: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Standard Gumbel noise, (N, V) float32, a pure function of the rows' keys (int32).

    Values lie in [-2.9, 17.4].
    """
    # Exclusive or with 0: Inductor takes an entry's number times a constant for an index, which
    # cannot overflow, and its C++ then has undefined behaviour.
    entry_V = torch.arange(vocab_size, device=key_N2.device, dtype=torch.int32) ^ 0
    bits_NV = (entry_V * _signed(GOLDEN_RATIO)) ^ key_N2[:, :1]
    bits_NV = _scramble(bits_NV) ^ key_N2[:, 1:]
    bits_NV = _scramble(bits_NV)
    uniform_NV = uniform_numbers(bits_NV)
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


def draw_thought_tokens(
    logits_NV: torch.Tensor,
    temperature_N: torch.Tensor,
    seed_N: torch.Tensor,
    position_N: torch.Tensor,
    step_N: torch.Tensor,
) -> torch.Tensor:
    """`choose_thought_token` with the noise of these seeds, positions and steps, (N,) int64 each.

    Some thirty operations on (N, V) numbers: compile them into one where it runs in every pass.
    """
    noise_NV = gumbel_noise(row_keys(seed_N, position_N, step_N), logits_NV.shape[1])
    return choose_thought_token(logits_NV, temperature_N, noise_NV)


def mask_meta_tokens(logits: torch.Tensor, meta_token_ids: tuple[int, int]) -> torch.Tensor:
    """Put START and END at -inf, in place, (..., V): they are fed, and never sampled."""
    for token_id in meta_token_ids:
        logits[..., token_id] = -torch.inf
    return logits


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit integers with negligible statistical bias (xorshift-multiply)."""
    x = (x ^ _shift_right(x, 16)) * _signed(MULTIPLIERS[0])
    x = (x ^ _shift_right(x, 15)) * _signed(MULTIPLIERS[1])
    return x ^ _shift_right(x, 16)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift; torch's own is arithmetic on signed integers."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _signed(x: int) -> int:
    """The int32 with the same bits."""
    return x - 0x100000000 if x > 0x7FFFFFFF else x
