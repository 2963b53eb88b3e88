"""Per-rank state of a checkpoint: tensors as safetensors, the rest as JSON. Reading runs no code."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cove_dist.errors import CheckpointError

_TENSOR = "tensor"  # {"tensor": "3"} refers to the tensor with this name


def rank_file(rank: int) -> str:
    """Return the name of a rank's file in a checkpoint."""
    return f"rank_{rank}.safetensors"


def encode(state: dict[str, Any]) -> bytes:
    """Encode nested mappings, lists, tuples, tensors, numbers, strings, booleans and None; tuples become lists.

    Raises:
        TypeError: A value has another type.
    """
    tensors: dict[str, torch.Tensor] = {}
    outline = json.dumps(_outline(state, tensors))
    return save(tensors, {"state": outline})


def decode(path: Any) -> dict[str, Any]:
    """Read from a file what `encode` returned.

    Raises:
        CheckpointError: The file is not the state of a rank.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _restored(json.loads((file.metadata() or {})["state"]), tensors)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the state of a rank: {error}. Remove this checkpoint's folder") from error


def _outline(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value with references instead of tensors, which are added to ``tensors``."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # clone: safetensors refuses shared memory
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {"items": [[_outline(key, tensors), _outline(each, tensors)] for key, each in value.items()]}
    return [_outline(each, tensors) for each in value] if isinstance(value, (list, tuple)) else value


def _restored(outline: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(outline, list):
        return [_restored(each, tensors) for each in outline]
    if not isinstance(outline, dict):
        return outline
    if _TENSOR in outline:
        return tensors[outline[_TENSOR]]
    return {key: _restored(each, tensors) for key, each in outline["items"]}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the random generators used by dropout."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore the state of the random generators."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
