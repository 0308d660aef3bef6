"""Hand-made pickles in PyTorch's containers: code and lies. None of it is run."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from flagscope.checkpoint import open_checkpoint
from flagscope.checkpoint.pickle.machine import unpickled
from flagscope.checkpoint.pickle.records import Global, StandIn
from flagscope.errors import CorruptFileError, SourceError, UnsafeFileError
from handmade_pickles import LEGACY, TENSOR, archive, entries, number, storage, tensor, text


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "pickled code was run"


def calls(canary: Path) -> dict[str, bytes]:
    """Instructions that leave the result of a call on the stack, if anyone were to call."""
    touch = text(f"touch {canary}")
    code = text(f"open({str(canary)!r}, 'w').close()")
    system = b"cposix\nsystem\n"
    return {
        "reduce": system + touch + b"\x85R",
        "old class": b"(" + touch + b"iposix\nsystem\n",
        "object": b"(" + system + touch + b"o",
        "new": b"csubprocess\nPopen\n" + text(f"touch {canary}").join([b"]", b"a"]) + b"\x85\x81",
        "new with keywords": b"csubprocess\nPopen\n)}" + text("args") + touch + b"s\x92",
        "from the stack": text("posix") + text("system") + b"\x93" + touch + b"\x85R",
        "eval": b"cbuiltins\neval\n" + code + b"\x85R",
        "exec": b"c__builtin__\nexec\n" + code + b"\x85R",
        "call of a call": b"cfunctools\npartial\n(" + system + touch + b"tR)R",
        "attribute": b"cbuiltins\ngetattr\n(cpathlib\nPath\n" + text(str(canary)) + b"\x85R"
        + text("touch") + b"tR)R",
        "state": b"cpathlib\nPath\n)\x81" + entries((text("__reduce__"), system)) + b"b",
        "state of a function": TENSOR + b"}" + text("__code__") + code + b"sb0" + system + touch
        + b"\x85R",
        "state of a class": b"ccollections\nOrderedDict\n" + entries((text("__init__"), system))
        + b"b" + touch + b"\x85R",
        "state with slots": b"ccollections\nOrderedDict\n)R(N" + entries((text("get"), system))
        + b"tb",
        "within a tensor": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + system + system + touch
        + b"\x85NtR",
        "nested reduce": b"cbuiltins\nlist\ncbuiltins\nmap\n(" + system + b"(" + touch
        + b"ltR" + b"\x85R",
        "items": b"cbuiltins\nlist\n)R(" + system + touch + b"\x85Re",
        "torch.load": b"ctorch\nload\n" + text(str(canary)) + b"\x85R",
        "extension": b"\x82\x07" + touch + b"\x85R",
        "operator": b"coperator\nmethodcaller\n(" + text("system") + touch + b"tR"
        + b"cos\npath\n\x85R",
    }  # fmt: skip


@pytest.mark.parametrize("call", calls(Path()))
@pytest.mark.parametrize("place", ["alone", "next to it", "as a key", "as the model"])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_no_instruction_runs_anything(tmp_path, canary, call, place, kind):
    made = calls(canary)[call]
    weight = (text("w"), tensor())
    body = {
        "alone": made,
        "next to it": entries(weight, (text("x"), made)),
        "as a key": b"}" + text("w") + tensor() + b"s" + made + b"Ns",
        "as the model": entries((text("model"), made), (text("net"), entries(weight))),
    }[place]
    path = tmp_path / "a.pt"
    if kind == "zip":
        archive(path, body, torch.ones(4).numpy().tobytes())
    else:
        keys = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + torch.ones(4).numpy().tobytes()
        path.write_bytes(LEGACY + b"\x80\x02" + body + b"." + keys)
    if place == "alone":
        with pytest.raises(SourceError) as error:
            open_checkpoint(path)
        assert error.value.hint
        return
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").sum() == 4


def test_calls_are_recorded_as_they_are(canary):
    names: set[Global] = set()
    for made in calls(canary).values():
        unpickled(io.BytesIO(made + b"."), meanings={}, persistent=str, names=names)
    assert Global("posix", "system") in names
    assert Global("posix", "system").reaches_the_system
    found = unpickled(
        io.BytesIO(b"cposix\nsystem\n" + text("true") + b"\x85R."),
        meanings={},
        persistent=str,
        names=names,
    )
    assert isinstance(found, StandIn)
    assert (str(found.what), found.arguments) == ("posix.system", ("true",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 2**70, 1.5, None, True, "é"], "b": ((), (1,), (1, 2), (1, 2, 3, 4))},
        ["x" * 300, "y" * 70000, list(range(3000)), {i: str(i) for i in range(2000)}],
    ],
)
def test_plain_values_are_those_of_pickle(protocol, value):
    value = value if protocol < 3 else [value, b"x" * 300, b"y" * 70000, b""]
    data = pickle.dumps(value, protocol)
    assert unpickled(io.BytesIO(data), meanings={}, persistent=str, names=set()) == value


@pytest.mark.parametrize(
    "told",
    [
        text("storage"),
        b"(t",
        b"(" + text("storage") + b"t",
        b"(" + text("module") + b"cposix\nsystem\n" + text("") + text("") + b"t",
        b"(" + text("storage") + b"cposix\nsystem\n" + text("0") + text("cpu") + number(4) + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("../0") + text("c") + number(4)
        + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + number(0) + text("c") + number(4)
        + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("c") + text("4")
        + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("c") + number(2**60)
        + b"t",
        b"(" + text("storage") + b"ctorch\nDoubleStorage\n" + text("0") + text("c") + number(4)
        + b"t",
        b"]",
    ],
)  # fmt: skip
def test_references_to_anything_but_storages_of_the_file(tmp_path, refused, told):
    refused(archive(tmp_path / "a.pt", entries((text("w"), tensor(told + b"Q")))), CorruptFileError)


@pytest.mark.parametrize(
    "how",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"shape": (2, 3)},
        {"shape": (-2, -2)},
        {"shape": (2,)},
        {"shape": (2**40, 2**40), "stride": (1, 1)},
        {"stride": (-2, 1)},
        {"stride": (2**62, 1)},
        {"shape": (1,) * 100, "stride": (1,) * 100},
        {"place": b"N"},
        {"place": tensor()},
        {"place": storage("1")},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, refused, how):
    refused(archive(tmp_path / "a.pt", entries((text("w"), tensor(**how)))), CorruptFileError)


@pytest.mark.parametrize("arguments", [b")", b"(Nt", b"N", b"]", b"(" + storage() + b"NNNNNt"])
@pytest.mark.parametrize(
    "function",
    [
        b"ctorch._utils\n_rebuild_tensor\n",
        TENSOR,
        b"ctorch._utils\n_rebuild_tensor_v3\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ctorch._utils\n_rebuild_qtensor\n",
        b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
        b"ctorch\nSize\n",
        b"ccollections\nOrderedDict\n",
    ],
)
def test_arguments_of_another_kind(tmp_path, function, arguments):
    path = archive(tmp_path / "a.pt", entries((text("w"), function + arguments + b"R")))
    with pytest.raises(SourceError) as error:
        open_checkpoint(path)
    assert error.value.hint


@pytest.mark.parametrize(
    "body",
    [b"", b"0", b"t", b"u", b"R", b"b", b"a", b"s", b"(", b"((", b"}(Nu", b"N(Ne", b"h\x01", b"2",
     b"q\x01", b"\x93", b"NN\x93", b"Q", b"\x85", b"(o", b"\x97", b"c\n", b"\xff", b"Nabc",
     b"\x8e" + struct.pack("<Q", 2**62), b"X\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f",
     b"\x96" + struct.pack("<Q", 2**40), b"I" + b"9" * 5000 + b"\n", b"S'\\x\n",
     b"r\xff\xff\xff\x7f"],
    ids=repr,
)  # fmt: skip
def test_broken_pickles(tmp_path, refused, body):
    refused(archive(tmp_path / "a.pt", body), CorruptFileError)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name(tmp_path, refused):
    path = archive(tmp_path / "a.pt", entries((text("w"), tensor())))
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("a/data.pkl", b"\x80\x02" + entries((text("v"), tensor())) + b".")
    refused(path, CorruptFileError, "two members of one name")


def test_a_member_placed_elsewhere(tmp_path, refused):
    path = archive(tmp_path / "a.pt", entries((text("w"), tensor())))
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", directory + 1)
    for place in (3, 2**31, 2**32 - 2, len(data) - 5):
        data[second + 42 : second + 46] = struct.pack("<I", place)
        path.write_bytes(data)
        refused(path, CorruptFileError)


def test_scripts_run_nothing(tmp_path, canary):
    body = b"c__torch__.net\nNet\n)\x81" + entries(
        (text("w"), tensor()), (text("x"), calls(canary)["reduce"])
    ) + b"b"  # fmt: skip
    path = archive(tmp_path / "a.pt", body, constants__pkl=calls(canary)["eval"])
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert any("posix.system" in note for note in checkpoint.notes)


def test_a_storage_that_is_longer_than_the_legacy_file(tmp_path, refused):
    for count, told in ((4, 5), (5, 4), (2**40, 2**40), (4, -1), (4, 2**62)):
        body = entries((text("w"), tensor(storage(count=count))))
        keys = pickle.dumps(["0"], 2) + struct.pack("<q", told) + bytes(16)
        (tmp_path / "a.pt").write_bytes(LEGACY + b"\x80\x02" + body + b"." + keys)
        refused(tmp_path / "a.pt", CorruptFileError)


@pytest.mark.parametrize("keys", [[], ["0", "0"], ["1"], ["0", "1"], 7, [0]])
def test_keys_of_a_legacy_file_that_are_not_those_of_its_storages(tmp_path, refused, keys):
    body = entries((text("w"), tensor()))
    data = pickle.dumps(keys, 2) + (struct.pack("<q", 4) + bytes(16)) * 2
    (tmp_path / "a.pt").write_bytes(LEGACY + b"\x80\x02" + body + b"." + data)
    refused(tmp_path / "a.pt", CorruptFileError)


def test_objects_alone_are_refused_by_name(tmp_path, refused, canary):
    path = archive(tmp_path / "a.pt", calls(canary)["reduce"])
    refused(path, UnsafeFileError, r"posix\.system; nothing of it was run")
