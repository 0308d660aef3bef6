"""Equal steps are equal whole where hashes are known; where those differ, that is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import save

from series.made import Run, checked, mlp


def _cached(run: Run, folder: Path, metadata: dict[int, dict[str, str]]) -> Path:
    """Snapshots of a hub's cache, which link to blobs that are named by their SHA-256."""
    blobs = folder / "blobs"
    blobs.mkdir()
    for step, state in run:
        content = save(state, metadata=metadata.get(step))
        blob = blobs / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        inner = folder / "series" / f"checkpoint-{step}"
        inner.mkdir(parents=True)
        (inner / "model.safetensors").symlink_to(blob)
    return folder / "series"


@pytest.mark.parametrize("metadata", [{}, {20: {"format": "pt"}}])
def test_hashes_of_a_cache_stand_next_to_equal_samples(
    metadata: dict[int, dict[str, str]], tmp_path: Path
) -> None:
    run = mlp(0, steps=6)
    run[2] = (20, run[4][1])
    (fault,) = checked(_cached(run, tmp_path, metadata)).faults
    assert (fault.code, fault.steps) == ("equal", ["checkpoint-20", "checkpoint-40"])
    same = "and so are the SHA-256 of their files" in fault.evidence
    other = "the SHA-256 of their files are not" in fault.evidence
    assert (same, other) == (not metadata, bool(metadata))
