"""A scan of an object store that is begun again goes on where it was, if nothing was uploaded."""

from __future__ import annotations

import json

import flagscope
from remote.conftest import CONFIG, model, sharded


def files(state):
    return sharded(state) | {"config.json": json.dumps(CONFIG | {"n_embd": 48}).encode()}


def scanned(url, store):
    return flagscope.scan(url, device="cpu", workers=1, store=store).result


def test_results_are_kept_until_the_weights_change(bucket, tmp_path):
    put, log = bucket
    state = model(d=48)
    url = put(files(state))
    first = scanned(url, tmp_path)
    log.clear()
    again = scanned(url, tmp_path)
    assert again.run.tasks_from_store == again.run.tasks == first.run.tasks
    assert again.pairs == first.pairs
    # A listing, config and index, headers, samples for the fingerprint, and whether their files
    # are still the same: no tensor.
    assert log.count() == 1 + 2 + 3 + 3 + 3
    # A change between the samples of the fingerprint.
    state["h.0.mlp.c_fc.weight"][10, 0] += 1.0
    put(files(state))
    changed = scanned(url, tmp_path)
    assert changed.fingerprint == first.fingerprint
    assert changed.run.tasks_from_store == 0
    assert changed.pairs != first.pairs
