"""Random damage to good files: an error of the tree or a reading, never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import SourceError

STATE = {
    "w": torch.arange(35.0).reshape(7, 5),
    "h": torch.arange(4).half(),
    "n": torch.tensor(3),
}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}
SAVED = {"state_dict": STATE, "epoch": 3, "history": [0.1, {"loss": 2.5}]}
WRITERS = {
    "a.safetensors": lambda path: path.write_bytes(save(STATE)),
    "zip.pt": lambda path: torch.save(SAVED, path),
    "legacy.pt": lambda path: torch.save(SAVED, path, _use_new_zipfile_serialization=False),
    "stored.npz": lambda path: np.savez(path, **ARRAYS),
    "packed.npz": lambda path: np.savez_compressed(path, **ARRAYS),
}


def damaged(whole: bytes, rng: random.Random) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place, length = rng.randrange(len(content)), rng.randrange(1, 20)
        match rng.randrange(4):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                content[place] ^= 1 << rng.randrange(8)
            case 2:
                del content[place : place + length]
            case _:
                content[place:place] = rng.randbytes(length)
    return bytes(content)


@pytest.mark.parametrize("name", WRITERS)
def test_damage(tmp_path: Path, name):
    path = tmp_path / name
    WRITERS[name](path)
    whole, rng = path.read_bytes(), random.Random(name)
    read = refused = 0
    for _ in range(200):
        path.write_bytes(damaged(whole, rng))
        try:
            with open_checkpoint(path) as checkpoint:
                for tensor in checkpoint.tensors:
                    checkpoint.read(tensor)
                checkpoint_fingerprint(checkpoint)
            read += 1
        except SourceError:
            refused += 1
    # Both happen: damage to the data goes unseen, as no format but packed npz has a checksum
    # that is checked; damage to the header does not.
    assert read > 0
    assert refused > 50
