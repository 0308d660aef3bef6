"""Damage that keeps a file readable as what it is: headers, archives, pickles, messages."""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from fuzz.damage import damaged
from fuzz.hostile import NUMBERS, PAYLOADS, TEXTS, value
from fuzz.trees import changed

Change = Callable[[bytes, random.Random], bytes]


def json_text(content: bytes, rng: random.Random) -> bytes:
    """JSON with other values in it, or nested as no parser follows."""
    if rng.random() < 0.03:
        return rng.choice((b"[" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000))
    return json.dumps(changed(json.loads(content), rng)).encode()


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """Another header, its length told rightly; or one that is right, and odd, or odd numbers."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    match rng.randrange(5):
        case 0 | 1:
            header = json_text(header, rng)
        case 2 | 3:
            header = json.dumps(_odd(json.loads(header), rng)).encode()
        case _:
            data = _odd_numbers(data, rng)
    return struct.pack("<Q", len(header)) + header + data


def _odd(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Tensors under other names, in other shapes and types of the same size."""
    found = {}
    share = rng.choice((0.05, 0.3, 1.0))
    old, new = rng.choice(tuple(header)).split(".")[0], rng.choice(TEXTS)
    for name, one in header.items():
        if name != "__metadata__" and rng.random() < share:
            match rng.randrange(4):
                case 0:
                    name = f"{name}{rng.choice(('', '.'))}{rng.choice(TEXTS)}"
                case 1:
                    name = name.replace(old, new)
                case 2:
                    one = one | {"shape": _reshaped(one["shape"], rng)}
                case _ if one["dtype"] == "F32":
                    one = one | {"dtype": rng.choice(("I32", "U32"))}
        found[name] = one
    return found


def _reshaped(shape: list[int], rng: random.Random) -> list[int]:
    size = prod(shape)
    split = next((n for n in (8, 6, 5, 4, 3, 2) if size % n == 0), 1)
    others = ([size], [1, size], [size, 1], [split, size // split], [size // split, 1, split],
              [1] * 6 + [size], [1] * 40 + [size], shape[::-1], [split, size // split, 1, 1],
              [*shape, 1], [1, *shape])  # fmt: skip
    return rng.choice(others)


def _odd_numbers(data: bytes, rng: random.Random) -> bytes:
    """Numbers that are none, endless, huge, tiny or all alike in a run of the data."""
    one = struct.pack("<f", rng.choice((float("nan"), float("inf"), 0.0, 1.0, 3e38, 1e-42, -1e30)))
    start = 4 * rng.randrange(len(data) // 4)
    length = 4 * rng.choice((1, 16, 300, len(data)))
    return data[:start] + one * (len(data[start : start + length]) // 4) + data[start + length :]


def archive(content: bytes, rng: random.Random) -> bytes:
    """A zip archive whose checksums are right, one member changed, lost, renamed or doubled."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    at = rng.randrange(len(members))
    info, data = members[at]
    name = info.filename
    match rng.randrange(8):
        case 0:
            members.pop(at)
        case 1:
            stem = name.rpartition("/")[0]
            info.filename = rng.choice((f"{stem}/{rng.choice(TEXTS)}", rng.choice(TEXTS)))
            info.filename = info.filename.encode("utf-8", "replace").decode()
        case 2:
            members[at] = info, bytes(rng.choice((0, 10**5, 2**24)))
        case _:
            members[at] = info, of_name(name)(data, rng)
    packed = rng.choice((info.compress_type, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for number, (info, data) in enumerate(members):
            kind = packed if number == at else info.compress_type
            new.writestr(info, data, compress_type=kind)
    return file.getvalue()


def pickled(content: bytes, rng: random.Random) -> bytes:
    """A pickle with another operand, an operation more or less, or code to run."""
    try:
        steps = [(op, argument, at) for op, argument, at in pickletools.genops(content)]
    except Exception:  # what no pickle is gets other damage
        return damaged(content, rng)
    number = rng.randrange(len(steps))
    op, argument, start = steps[number]
    stop = steps[number + 1][2] if number + 1 < len(steps) else start + 1
    piece = content[start:stop]
    match rng.randrange(6):
        case 0:
            piece = b""
        case 1:
            piece = piece + piece
        case 2:
            piece = rng.choice(PAYLOADS) + rng.choice((b"", b"0")) + piece
        case 3:
            many = rng.choice((10, 10_000))
            piece = rng.choice((b"(" * many, b"]" * many, b"}" * many, b"2" * many)) + piece
        case 4:
            other = steps[rng.randrange(len(steps) - 1)]
            piece = content[other[2] : other[2] + 6]
        case _:
            piece = _operand(op.name, argument, piece, rng)
    return content[:start] + piece + content[stop:]


def legacy(content: bytes, rng: random.Random) -> bytes:
    """One of the pickles that follow each other in a file of the older format of torch.save."""
    starts = [at for at in range(len(content)) if content.startswith(b"\x80\x02", at)]
    at = rng.choice(starts)
    return content[:at] + pickled(content[at:], rng)


def _operand(name: str, argument: Any, piece: bytes, rng: random.Random) -> bytes:
    if isinstance(argument, bool) or argument is None:
        return rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"K\x07"))
    if isinstance(argument, int) and "PUT" not in name and "GET" not in name:
        number = rng.choice([one for one in NUMBERS if type(one) is int])
        raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8b" + struct.pack("<i", len(raw)) + raw
    if isinstance(argument, int):
        return rng.choice((b"r", b"j")) + struct.pack("<I", rng.choice((0, 99, 2**31, 2**32 - 1)))
    if isinstance(argument, str) and "UNICODE" in name:
        raw = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(argument, str) and name == "GLOBAL":
        return rng.choice((b"cos\nsystem\n", b"ctorch\nload\n", b"cbuiltins\neval\n"))
    return damaged(piece, rng)


def onnx_model(content: bytes, rng: random.Random) -> bytes:
    """An ONNX model with other fields."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        message: Any = model
        while True:
            fields = message.ListFields()
            if not fields:
                break
            field, held = rng.choice(fields)
            inner = field.message_type is not None
            if inner and rng.random() < 0.9:
                message = held if not _repeated(held) else held[rng.randrange(len(held))]
                continue
            _field(message, field, held, rng)
            break
    return model.SerializeToString()


def _repeated(held: Any) -> bool:
    return hasattr(held, "__len__") and hasattr(held, "append")


def _field(message: Any, field: Any, held: Any, rng: random.Random) -> None:
    numbers = [one for one in NUMBERS if type(one) is int and -(2**31) <= one < 2**31]
    other: Any = rng.choice(TEXTS).encode("utf-8", "replace").decode()
    if isinstance(held, int):
        other = rng.choice(numbers)
    elif isinstance(held, float):
        other = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    elif isinstance(held, bytes):
        other = damaged(held, rng)
    if not _repeated(held):
        message.ClearField(field.name)
        if rng.random() < 0.8 and not hasattr(held, "ListFields"):
            setattr(message, field.name, other)
        return
    at = rng.randrange(len(held))
    if hasattr(held[at], "ListFields"):
        held.append(held[at]) if rng.random() < 0.5 else held.pop(at)
        return
    kind = type(held[at])
    listed = [*numbers, 2**40, 2**62] if kind is int else [other]
    held[at] = rng.choice(listed) if kind in (int, str, float) else damaged(held[at], rng)
    if rng.random() < 0.1:
        held.extend([held[at]] * 5000)


def msgpack_tree(content: bytes, rng: random.Random) -> bytes:
    """A tree of msgpack with other values; arrays are damaged inside."""
    import msgpack

    tree = msgpack.unpackb(content, strict_map_key=False)

    def make(rng: random.Random) -> Any:
        if rng.random() < 0.4:
            packed = msgpack.packb(
                (rng.choice(([3, 2], [-1], [2**62, 4], [], 5)), "float32", b"12")
            )
            return msgpack.ExtType(rng.choice((1, 2, 3, 9)), damaged(packed, rng))
        found = value(rng)
        return found if not isinstance(found, int) or -(2**63) <= found < 2**64 else 2**40

    return msgpack.packb(changed(tree, rng, make), unicode_errors="surrogatepass", default=str)


def hdf5(content: bytes, rng: random.Random) -> bytes:
    """An HDF5 file with other attributes, links and arrays."""
    import h5py

    file = io.BytesIO(content)
    with h5py.File(file, "r+") as tree:
        names: list[str] = []
        tree.visit(names.append)
        name = rng.choice(names)
        match rng.randrange(7):
            case 0:
                del tree[name]
            case 1:
                tree[f"{name}_{rng.randrange(9)}"] = tree[name]
            case 2:
                tree["more"] = h5py.SoftLink(rng.choice(("/", "/nowhere", "/more", f"/{name}")))
            case 3:
                tree["more"] = h5py.ExternalLink(rng.choice(("/etc/passwd", "x.h5")), "/")
            case 4:
                shape = rng.choice(((2**20, 2**20), (5, 5), (2**40,), (1,) * 30))
                tree.create_dataset("more", shape, "f4", chunks=(1,) * len(shape))
            case 5 if "model_config" in tree.attrs:
                text = json_text(str(tree.attrs["model_config"]).encode(), rng)
                tree.attrs["model_config"] = text.decode("utf-8", "replace")
            case _:
                text = rng.choice(TEXTS).encode("utf-8", "replace").replace(b"\0", b"")
                tree.move(
                    name, f"{name.rpartition('/')[0]}/{text[:200].decode('utf-8', 'ignore')}_"
                )
    return file.getvalue()


def lines(content: bytes, rng: random.Random) -> bytes:
    """A text with a line more, less or elsewhere, or with another value in it."""
    rows = content.decode().split("\n")
    at = rng.randrange(len(rows))
    match rng.randrange(4):
        case 0:
            rows.pop(at)
        case 1:
            rows.insert(at, rng.choice(rows))
        case _:
            before, sign, _ = rows[at].partition("=")
            try:
                text = json.dumps(value(rng))
            except ValueError:  # a number of 5,000 digits
                text = "9" * 5000
            rows[at] = f"{before}{sign}{text}"
    return "\n".join(rows).encode("utf-8", "replace")


_BY_SUFFIX: dict[str, Change] = {
    ".json": json_text, ".safetensors": safetensors, ".pkl": pickled, ".zip": archive,
    ".pth": legacy, ".pt": archive,
    ".bin": archive, ".npz": archive, ".keras": archive, ".h5": hdf5, ".onnx": onnx_model,
    ".msgpack": msgpack_tree, ".toml": lines, ".metadata": pickled, ".distcp": archive,
}  # fmt: skip


def of_name(name: str) -> Change:
    """What damages a file of such a name from inside; bytes in general where nothing does."""
    path = Path(name)
    return _BY_SUFFIX.get(path.suffix or path.name, damaged)


def mutated(path: Path, rng: random.Random) -> None:
    """Damage one file: from inside in two of three cases, else its bytes."""
    content = path.read_bytes()
    change = of_name(path.name) if rng.random() < 0.67 else damaged
    try:
        content = change(content, rng)
    except Exception:  # what was to be damaged from inside is not whole: damaged already, or legacy
        content = damaged(content, rng)
    path.write_bytes(content)
