"""Mappings of names to arrays of other libraries."""

import ml_dtypes
import numpy as np
import pytest
import torch

import flagscope
from flagscope.checkpoint import from_state_dict
from flagscope.errors import InputError

RNG = np.random.default_rng(0)


def arrays():
    return {"0.weight": RNG.normal(size=(6, 5)), "2.weight": RNG.normal(size=(4, 6))}


def test_arrays_are_scanned_as_tensors_are():
    given = arrays()
    tensors = {name: torch.tensor(one) for name, one in given.items()}
    results = [flagscope.scan(one, workers=1).result for one in (given, tensors)]
    first, second = ([pair.model_dump() for pair in one.pairs] for one in results)
    assert first == second
    assert len(first) == 1


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?", ">f4", ml_dtypes.bfloat16,
              ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2],
)  # fmt: skip
def test_types_are_kept_to_the_bit(dtype):
    numbers = RNG.normal(size=(3, 4)).astype(dtype)
    read = from_state_dict({"w": numbers}).read("w")
    assert str(read.dtype).removeprefix("torch.") == numbers.dtype.newbyteorder("=").name
    assert np.array_equal(read.double().numpy(), numbers.astype(np.float64))


def test_layouts_and_arrays_that_may_not_be_written_to():
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    fixed = whole.copy()
    fixed.flags.writeable = False
    fields = np.zeros(3, dtype=[("a", "f4"), ("b", "i1")])
    for array in (whole[::-1], whole[:, ::2], whole.T, np.asfortranarray(whole), fixed):
        assert np.array_equal(from_state_dict({"w": array}).read("w").numpy(), array)
    assert from_state_dict({"w": whole}).read("w").data_ptr() == whole.ctypes.data
    # a field among others: its step is no multiple of its size
    packed = from_state_dict({"w": whole, "a": fields["a"]})
    assert packed.read("a").tolist() == [0, 0, 0]


def test_what_is_no_array_of_numbers_is_passed_over():
    others = {"text": np.array(["a"]), "objects": np.array([None]), "step": np.int64(3),
              "wide": np.ones(2, dtype=np.longdouble), "records": np.zeros(2, dtype=[("a", "f4")]),
              "list": [1.0, 2.0]}  # fmt: skip
    checkpoint = from_state_dict({**arrays(), **others})
    assert list(checkpoint.tensors) == ["0.weight", "2.weight"]
    assert any("passed over 6 entries" in note for note in checkpoint.notes)
    with pytest.raises(InputError, match="no dense tensors"):
        from_state_dict(others)


def test_nested_mappings_and_other_libraries():
    class Foreign:
        """An array that only offers a copy, as JAX's does."""

        def __init__(self, numbers):
            self._numbers = numbers
            self.shape = numbers.shape

        def __array__(self, dtype=None, copy=None):
            return np.array(self._numbers, dtype=dtype)

    class Exchanged:
        def __init__(self, tensor):
            self._tensor, self.shape = tensor, tensor.shape

        def __dlpack__(self, **kwargs):
            return self._tensor.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self._tensor.__dlpack_device__()

    class Failing:
        shape = (2, 2)

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("deleted")

    given = {"epoch": 1, "model": {"module.a": Foreign(np.eye(2)), "module.b": Failing(),
                                   "module.c": Exchanged(torch.eye(3))}}  # fmt: skip
    checkpoint = from_state_dict(given)
    assert list(checkpoint.tensors) == ["a", "c"]
    assert torch.equal(checkpoint.read("a"), torch.eye(2, dtype=torch.float64))
    assert torch.equal(checkpoint.read("c"), torch.eye(3))
