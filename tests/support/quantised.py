"""Quantised checkpoints, each with the unquantised one of the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from quietstar_infer.checkpoint import load_tensors
from tests.support.checkpoints import save_checkpoint, write_random_checkpoint

Tensors = dict[str, torch.Tensor]
GROUP = 32
# What vLLM's kernels for the CPU take.
SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Scheme(NamedTuple):
    """How linear layers are quantised: `quantization_config` of config.json, and a function from a
    layer's weight to its tensors by name, and to what they stand for.
    """

    config: dict[str, Any]
    quantise: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]


class Twins(NamedTuple):
    quantised: Path
    dense: Path


def _compressed_tensors(
    format_: str, weights: dict[str, Any], activations: dict[str, Any] | None
) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def _int8(weight_OI: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).div(127).bfloat16()
    number_OI = (weight_OI / scale_O1.float()).round().clamp(-127, 127)
    tensors = {"weight": number_OI.to(torch.int8), "weight_scale": scale_O1}
    return tensors, number_OI * scale_O1.float()


def _four_bits(weight_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers from 0 to 15, which stand for -8 to 7, scales by group, and what they stand for."""
    grouped_OGI = weight_OI.unflatten(1, (-1, GROUP))
    scale_OG = grouped_OGI.abs().amax(dim=2).div(7).half()
    number_OGI = (grouped_OGI / scale_OG.float()[..., None]).round().clamp(-8, 7)
    dense_OI = (number_OGI * scale_OG.float()[..., None]).flatten(1)
    return number_OGI.flatten(1).add(8).to(torch.int64), scale_OG, dense_OI


def _packed(number: torch.Tensor, dim: int) -> torch.Tensor:
    """Eight numbers of four bits in each integer, along a dimension."""
    eights = number.movedim(dim, -1).unflatten(-1, (-1, 8))
    packed: torch.Tensor = (eights << torch.arange(0, 32, 4)).sum(dim=-1)
    return packed.to(torch.uint32).view(torch.int32).movedim(-1, dim).contiguous()


def _packed_int4(weight_OI: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    number_OI, scale_OG, dense_OI = _four_bits(weight_OI)
    tensors = {
        "weight_packed": _packed(number_OI, 1),
        "weight_scale": scale_OG.bfloat16(),
        "weight_shape": torch.tensor(weight_OI.shape),
    }
    return tensors, dense_OI


def _gptq(weight_OI: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    number_OI, scale_OG, dense_OI = _four_bits(weight_OI)
    inputs = weight_OI.shape[1]
    tensors = {
        "qweight": _packed(number_OI.T, 0),
        # One less than the zero, by the format's first version.
        "qzeros": _packed(torch.full_like(scale_OG.T, 7, dtype=torch.int64), 1),
        "scales": scale_OG.T.contiguous(),
        "g_idx": torch.arange(inputs, dtype=torch.int32) // GROUP,
    }
    return tensors, dense_OI


def _awq(weight_OI: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    number_OI, scale_OG, dense_OI = _four_bits(weight_OI)

    def ordered(number: torch.Tensor) -> torch.Tensor:
        eights: torch.Tensor = number.unflatten(1, (-1, 8))
        return eights[..., _AWQ_ORDER].flatten(1)

    zero_GO = torch.full_like(scale_OG.T, 8, dtype=torch.int64)
    tensors = {
        "qweight": _packed(ordered(number_OI.T), 1),
        "qzeros": _packed(ordered(zero_GO), 1),
        "scales": scale_OG.T.contiguous(),
    }
    return tensors, dense_OI


_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
_INT4 = {"num_bits": 4, "type": "int", "symmetric": True}
SCHEMES = {
    "compressed-tensors, int8 weights and activations": Scheme(
        _compressed_tensors(
            "int-quantized",
            {**_INT8, "strategy": "channel", "dynamic": False},
            {**_INT8, "strategy": "token", "dynamic": True},
        ),
        _int8,
    ),
    "compressed-tensors, int4 weights": Scheme(
        _compressed_tensors(
            "pack-quantized",
            {**_INT4, "strategy": "group", "group_size": GROUP, "dynamic": False},
            None,
        ),
        _packed_int4,
    ),
    "GPTQ": Scheme(
        {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "desc_act": False,
            "sym": True,
        },
        _gptq,
    ),
    "AWQ": Scheme(
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
        },
        _awq,
    ),
}


def write_quantised(folder: Path, scheme: Scheme) -> Twins:
    """Write a random checkpoint, quantised, and another of what its numbers stand for."""
    source = write_random_checkpoint(folder / "source", "llama", **SHAPE)
    config = json.loads((source / "config.json").read_text())
    quantised, dense = load_tensors(source), load_tensors(source)
    for name in [name for name in dense if name.endswith("_proj.weight")]:
        tensors, dense[name] = scheme.quantise(quantised.pop(name))
        layer = name.removesuffix("weight")
        quantised |= {layer + suffix: tensor for suffix, tensor in tensors.items()}
    save_checkpoint(
        folder / "quantised", {**config, "quantization_config": scheme.config}, quantised
    )
    save_checkpoint(folder / "dense", config, dense)
    return Twins(folder / "quantised", folder / "dense")
