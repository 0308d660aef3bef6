"""Pickles that would take any time or memory: what it takes to open or refuse them is bounded."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.checkpoint.pickle.machine import unpickled
from flagscope.checkpoint.pickle.records import PickleError
from flagscope.errors import CorruptFileError, SourceError
from handmade_pickles import (
    archive,
    entries,
    looped_module,
    module,
    number,
    repeated,
    shared_modules,
    tensor,
    text,
)


def measured(path: Path) -> tuple[float, int]:
    """Seconds of a processor, and bytes, that it takes to open a file or to refuse it."""
    begin = time.process_time()
    with suppress(SourceError), open_checkpoint(path) as checkpoint:
        checkpoint_fingerprint(checkpoint)
    seconds = time.process_time() - begin
    tracemalloc.start()
    with suppress(SourceError), open_checkpoint(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


BOMBS = {
    "deep lists": repeated(b"", b"]", 50_000, b"a" * 49_999),
    "deep tuples": repeated(b")", b"\x85", 60_000),
    "deep tuples as a key": b"}" + repeated(b")", b"\x85", 60_000) + b"Ns",
    "deep dicts": repeated(b"", b"}" + text("a"), 40_000, b"N" + b"s" * 40_000),
    "deep stand-ins": b"cx\ny\n" * 50_000 + b"N" + b"\x85R" * 50_000,
    "deep states": b"cx\ny\n)R" * 50_000 + b"N" + b"b" * 49_999,
    "doubled tuples": repeated(b")", b"2\x86", 40_000),
    "doubled lists": repeated(b"]q\x01", b"0]q\x02(h\x01h\x01eq\x01", 20_000),
    "many entries": b"}(" + b"".join(text(f"k{i}") + b"N" for i in range(60_000)) + b"u",
    "many tensors": b"}(" + b"".join(text(f"k{i}") + tensor() for i in range(3000)) + b"u",
    "colliding keys": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(60_000))
    + b"u",
    "colliding floats": b"}(" + b"".join(b"G" + struct.pack(">d", float(2**80 + i * 2**40)) + b"N"
                                         for i in range(60_000)) + b"u",
    "copies of a list": b"](" + b"N" * 50_000 + b"eq\x01" + b"0cbuiltins\nset\nq\x020]q\x03("
    + b"h\x02h\x01\x85R" * 30_000 + b"e",
    "copies of pairs": b"](" + b"NN\x86" * 20_000 + b"eq\x010ccollections\nOrderedDict\nq\x020]("
    + b"h\x02h\x01\x85R" * 20_000 + b"e",
    "copies of a text": text("x" * 10**6) + b"q\x010c_codecs\nencode\nq\x020]("
    + b"h\x02h\x01" + text("latin1") + b"\x86R" + b"h\x02h\x01\x85R" * 30_000 + b"e",
    "far memo": b"}r\xff\xff\xff\x7f",
    "long bytearray": b"\x96" + struct.pack("<Q", 2**45),
    "looped list": b"]q\x01h\x01a",
    "looped dict": b"}q\x01" + text("model") + b"h\x01s",
    "looped module": looped_module(),
    "shared modules": shared_modules(),
    "long names of modules": module(b"}", entries((text("x" * 10**6), module(
        b"}(" + b"".join(text(f"w{i}") + b"h\x07" for i in range(2000)) + b"u", b"}")))).replace(
        b"h\x07", tensor() + b"q\x07", 1),
    "repeated elements": entries((text("w"), tensor(shape=(10**6, 10**6), stride=(0, 0)))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("bomb", "alone"),
    [(bomb, True) for bomb in BOMBS] + [(bomb, False) for bomb in BOMBS if "loop" in bomb],
)
@pytest.mark.slow
def test_bombs_take_no_more_than_their_files_justify(tmp_path, bomb, alone):
    body = BOMBS[bomb]
    if not alone:
        body = entries((text("state_dict"), entries((text("w"), tensor()))), (text("x"), body))
    path = archive(tmp_path / "a.pt", body)
    seconds, peak = measured(path)
    assert seconds < 20  # without bounds, minutes or for ever
    assert peak < 2**27 + 150 * path.stat().st_size


@pytest.mark.slow
def test_many_arrays_and_storages_of_the_same_bytes(tmp_path):
    data, kind = text("x" * 10**6), b"cnumpy\ndtype\n" + text("u1") + b"\x85R"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n)R(" + number(1) + number(10**6) + b"\x85"
        + kind + b"\x89h\x01tb"
    )  # fmt: skip
    saved = io.BytesIO()
    torch.save(torch.ones(10**5).untyped_storage(), saved, _use_new_zipfile_serialization=False)
    whole = b"T" + struct.pack("<I", len(saved.getvalue())) + saved.getvalue()
    loaded = b"ctorch.storage\n_load_from_bytes\nh\x01\x85R"
    encoded = (
        b"ctorch.storage\n_load_from_bytes\nc_codecs\nencode\nh\x01" + text("latin1")
        + b"\x86R\x85R"
    )  # fmt: skip
    for bytes_, step in ((data, array), (whole, loaded), (whole, encoded)):
        body = bytes_ + b"q\x01" + b"0}" + b"".join(
            text(f"k{i}") + step + b"s" for i in range(3000)
        )  # fmt: skip
        path = tmp_path / "a.pkl"
        path.write_bytes(b"\x80\x02" + body + b".")
        seconds, peak = measured(path)
        assert seconds < 20
        assert peak < 2**26


def test_more_instructions_than_any_checkpoint_needs(monkeypatch):
    monkeypatch.setattr("flagscope.checkpoint.pickle.machine.MOST_INSTRUCTIONS", 1000)
    with pytest.raises(PickleError, match="instructions"):
        unpickled(
            io.BytesIO(b"N0" * 600 + b"N."), meanings={}, persistent=str, names=set()
        )  # fmt: skip


def test_modules_that_hold_each_other_are_refused(tmp_path, refused):
    refused(archive(tmp_path / "a.pt", looped_module()), CorruptFileError, "hold each other")
    refused(archive(tmp_path / "b.pt", shared_modules()), CorruptFileError, "more names")


def test_code_of_a_script_that_is_a_bomb(tmp_path):
    body = b"c__torch__.net\nNet\n)\x81" + entries((text("w"), tensor())) + b"b"
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in {"data.pkl": b"\x80\x02" + body + b".", "data/0": bytes(16),
                           "constants.pkl": b"\x80\x02)."}.items():  # fmt: skip
            made.writestr(zipfile.ZipInfo("a/" + name), data)
        made.writestr("a/code/__torch__/net.py", bytes(2**28))
    assert path.stat().st_size < 2**20
    seconds, peak = measured(path)
    assert seconds < 10
    assert peak < 2**26
