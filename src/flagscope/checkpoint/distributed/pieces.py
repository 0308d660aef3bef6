"""One tensor that torch.save wrote at a place inside a file."""

from __future__ import annotations

from typing import Any

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.pickle.inert import refuse_others
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.checkpoint.pickle.tensors import describes_tensors
from flagscope.checkpoint.torch.archive import TorchArchive
from flagscope.errors import CorruptFileError

# The description of one tensor takes a few hundred bytes.
_LONGEST_PICKLE = 2**16


def located_piece(placed: PlacedBytes, start: int, length: int, *, tensor: str) -> StoredTensor:
    """The tensor that bytes `start` … `start + length` of a file hold; nothing of them is run.

    Raises
    ------
    CorruptFileError
        If they are not a torch.save file of one dense tensor, or it does not fit in them.
    UnsafeFileError
        If they ask for more than a tensor's own functions.
    """
    shown = f"the part of {placed.path} that holds {tensor!r}"
    names: set[Global] = set()
    try:
        with placed.opened() as file:
            archive = TorchArchive(file, shown, start, length)
            description = archive.members.get(f"{archive.root}data.pkl")
            if description is None or description.file_size > _LONGEST_PICKLE:
                raise PickleError("it has no description, or a very long one")
            found: Any = archive.saved(names)
    except PickleError as error:
        refuse_others(names, describes_tensors, shown)
        raise CorruptFileError(f"{shown} is not a whole tensor: {error}.", hint=DAMAGED) from error
    refuse_others(names, describes_tensors, shown)
    plain = isinstance(found, StoredTensor) and not (found.conjugated or found.negated)
    # No element may stand for many, by which a small file could fill the memory.
    if not plain or found.storage is None or found.nbytes > found.storage.nbytes:
        raise CorruptFileError(
            f"{shown} holds something else than a dense tensor with its elements.", hint=DAMAGED
        )
    if found.storage.swapped:
        raise CorruptFileError(
            f"{shown}: its bytes are in the order of another kind of machine.", hint=DAMAGED
        )
    return found
