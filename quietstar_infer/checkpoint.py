"""The official checkpoint layout: tensor names, what must be there, and loading it in plain torch.

A checkpoint is a Hugging Face folder of the base model plus

    start_embedding, end_embedding   (2, H); row 0 times `embedding_scale` is the vector that is
                                     fed; row 1, a log-std, is not used
    talk_head.0.{0,2}.{weight,bias}  the mixing head's hidden layers
    talk_head.0.4.weight             its last layer

and, where `quiet_star.gate` in config.json says so, of ours: in any of the folder's safetensors
files, but written to one of its own, which the official code does not open,

    thought_gate.{0,2}.{weight,bias}  the thought gate
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from quietstar_infer.base_config import check_base_config
from quietstar_infer.base_shapes import base_tensor_shapes, missing_base_tensors
from quietstar_infer.config import QuietStarConfig, read_json
from quietstar_infer.errors import CheckpointError
from quietstar_infer.gate import GateConfig, ThoughtGate

START_EMBEDDING = "start_embedding"
END_EMBEDDING = "end_embedding"
MIXING_HEAD_PREFIX = "talk_head.0."
GATE_PREFIX = "thought_gate."
GATE_FILE = "thought_gate.safetensors"
INDEX_FILE = "model.safetensors.index.json"
EMBED_TOKENS = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"

# What a digest reads of each tensor.
_SAMPLE_BYTES = 4096

Shape = tuple[int, ...]


def thought_tensor_shapes(hidden_size: int) -> dict[str, Shape]:
    """Name and shape of every tensor that a Quiet-STaR checkpoint has beyond its base model's."""
    h = hidden_size
    return {
        START_EMBEDDING: (2, h),
        END_EMBEDDING: (2, h),
        f"{MIXING_HEAD_PREFIX}0.weight": (h, 2 * h),
        f"{MIXING_HEAD_PREFIX}0.bias": (h,),
        f"{MIXING_HEAD_PREFIX}2.weight": (h, h),
        f"{MIXING_HEAD_PREFIX}2.bias": (h,),
        f"{MIXING_HEAD_PREFIX}4.weight": (1, h),
    }


def gate_tensor_shapes(hidden_size: int, gate: GateConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of a thought gate."""
    with torch.device("meta"):
        tensors = ThoughtGate(hidden_size, gate).state_dict()
    return {GATE_PREFIX + name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_tensors(found: Mapping[str, Shape], hidden_size: int, where: str) -> None:
    """Raise `CheckpointError`, naming every thought tensor that is missing or has another shape."""
    expected = thought_tensor_shapes(hidden_size)
    missing = [name for name in expected if name not in found]
    if len(missing) == len(expected):
        raise CheckpointError(
            f"{where} is not a Quiet-STaR checkpoint: it has none of {', '.join(expected)}"
        )
    if missing:
        raise CheckpointError(f"{where} is incomplete: it lacks {', '.join(missing)}")
    _check_shapes(found, expected, where)


def _check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], where: str) -> None:
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tuple(found[name])}, expected {shape}"
            )


def check_checkpoint(folder: Path, *, has_base_model: bool = True) -> None:
    """Refuse a local folder that cannot be served, before an engine is started for it.

    Reads the headers of the safetensors files only. `has_base_model`: False where its weights are
    not there, because they are drawn at random. Raises `CheckpointError`.
    """
    config = read_json(folder / "config.json")
    check_base_config(config, folder)
    hidden_size = config["hidden_size"]
    shapes = dict(_tensor_shapes(folder))
    check_tensors(shapes, hidden_size, str(folder))
    missing = missing_base_tensors(shapes, config) if has_base_model else []
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(f"{folder} is incomplete: it lacks {missing[0]}{more}")
    _check_shapes(shapes, base_tensor_shapes(list(shapes), config), str(folder))
    _check_vocabulary(folder, shapes)
    gate = QuietStarConfig.from_checkpoint(folder).gate
    if gate is not None:
        _check_gate(shapes, hidden_size, gate, str(folder))


def _check_gate(found: Mapping[str, Shape], hidden_size: int, gate: GateConfig, where: str) -> None:
    expected = gate_tensor_shapes(hidden_size, gate)
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(
            f"{where}: config.json has a quiet_star.gate, but no file has {', '.join(missing)}"
        )
    _check_shapes(found, expected, where)


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a local checkpoint but its gate's, by name, on the CPU."""
    return _load(folder, lambda name: not name.startswith(GATE_PREFIX))


def checkpoint_digest(folder: Path) -> str:
    """A hash of the configuration and of the beginning of every tensor: the same for the same
    checkpoint, and quick to compute for a large one.
    """
    config = json.dumps(read_json(folder / "config.json"), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for path in _safetensors_files(folder):
        with path.open("rb") as file:
            head = file.read(8)
            size = int.from_bytes(head, "little")
            tensors = file.read(size)
            digest.update(tensors)
            for name, entry in sorted(json.loads(tensors).items()):
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(len(head) + size + begin)
                    digest.update(file.read(min(_SAMPLE_BYTES, end - begin)))
    return digest.hexdigest()


def load_gate(folder: Path, config: QuietStarConfig) -> ThoughtGate | None:
    """The thought gate of a local checkpoint, on the CPU; None where it has none. Raises
    `CheckpointError` where its tensors are missing or of another size.
    """
    if config.gate is None:
        return None
    tensors = _load(folder, lambda name: name.startswith(GATE_PREFIX))
    hidden_size: int = read_json(folder / "config.json")["hidden_size"]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    _check_gate(shapes, hidden_size, config.gate, str(folder))
    gate = ThoughtGate(hidden_size, config.gate)
    gate.load_state_dict(
        {name.removeprefix(GATE_PREFIX): tensor for name, tensor in tensors.items()}
    )
    return gate.requires_grad_(False).eval()


def _load(folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in _safetensors_files(folder):
        with _open(path) as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys() if is_wanted(name)})  # noqa: SIM118 - not a mapping
    return tensors


def meta_embeddings(
    config: QuietStarConfig,
    embed_tokens_VH: torch.Tensor,
    start_embedding_2H: torch.Tensor,
    end_embedding_2H: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors that are fed for START and END, each (H,), in the embedding mode of the
    checkpoint.
    """
    if config.embedding_mode == "reset":
        dash_H = embed_tokens_VH[config.dash_token_id]
        return dash_H, dash_H
    scale = config.embedding_scale
    return start_embedding_2H[0] * scale, end_embedding_2H[0] * scale


def _check_vocabulary(folder: Path, shapes: Mapping[str, Shape]) -> None:
    if EMBED_TOKENS not in shapes:
        raise CheckpointError(f"{folder} is incomplete: it lacks {EMBED_TOKENS}")
    vocab_size = shapes[EMBED_TOKENS][0]
    declared = read_json(folder / "config.json").get("vocab_size")
    if declared != vocab_size:
        raise CheckpointError(
            f"{folder}: config.json says vocab_size {declared}, but {EMBED_TOKENS} has "
            f"{vocab_size} rows"
        )
    largest = max(QuietStarConfig.from_checkpoint(folder).meta_token_ids)
    if largest >= vocab_size:
        raise CheckpointError(
            f"{folder}: {EMBED_TOKENS} has {vocab_size} rows, too few for the meta-token id "
            f"{largest}; the vocabulary must be grown by both meta-tokens"
        )


def _safetensors_files(folder: Path) -> Iterable[Path]:
    files = set(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{folder} has no *.safetensors file; save the model with safe_serialization=True"
        )
    if (folder / INDEX_FILE).exists():
        indexed = _indexed_files(folder)
        if missing := sorted(file.name for file in indexed - files):
            raise CheckpointError(
                f"{folder} is incomplete: it lacks {', '.join(missing)}, which {INDEX_FILE} names"
            )
        # vLLM and transformers read these only; gates are read from a file of their own.
        files = indexed | {file for file in files if file.name == GATE_FILE}
    return sorted(files)


def _indexed_files(folder: Path) -> set[Path]:
    names = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(it, str) for it in names.values()):
        raise CheckpointError(
            f"{folder}/{INDEX_FILE} has no weight_map, the name of a file for that of each tensor"
        )
    return {folder / name for name in names.values()}


def _tensor_shapes(folder: Path) -> Iterator[tuple[str, Shape]]:
    for path in _safetensors_files(folder):
        with _open(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, tuple(file.get_slice(name).get_shape())


def _open(path: Path) -> safe_open:
    try:
        # Of a file that may not be read, safetensors says that there is none.
        path.open("rb").close()
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
