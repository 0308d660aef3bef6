"""What every reader must do, whatever the format."""

from __future__ import annotations

import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flagscope.checkpoint import (
    Checkpoint,
    TensorInfo,
    checkpoint_fingerprint,
    from_state_dict,
    open_checkpoint,
)
from flagscope.errors import InputError


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Equality of every bit, so that NaN equals NaN and 0 is not -0."""
    return left.shape == right.shape and left.dtype == right.dtype and raw(left) == raw(right)


def raw(tensor: Tensor) -> bytes:
    flat = tensor.clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


class Contract:
    """The tests; a subclass says where the checkpoint comes from."""

    def test_header_says_names_shapes_types_and_sizes(self, checkpoint, state):
        assert set(checkpoint.tensors) == set(state)
        for name, tensor in state.items():
            info = checkpoint.tensors[name]
            assert isinstance(info, TensorInfo)
            assert info.name == name
            assert info.shape == tuple(tensor.shape)
            assert f"torch.{info.dtype}" == str(tensor.dtype)
            assert info.nbytes == tensor.numel() * tensor.element_size()

    def test_tensors_come_back_bit_by_bit(self, checkpoint, state):
        for name, tensor in state.items():
            assert same_bits(checkpoint.read(name), tensor), name

    def test_slices_are_those_of_the_whole_tensor(self, checkpoint, state):
        rng = random.Random(5)
        for name, tensor in state.items():
            for _ in range(20):
                index = tuple(
                    rng.randrange(-size, size)
                    if size and rng.random() < 0.3
                    else slice(
                        rng.choice([None, rng.randint(-size - 2, size + 2)]),
                        rng.choice([None, rng.randint(-size - 2, size + 2)]),
                    )
                    for size in tensor.shape[: rng.randint(0, tensor.ndim)]
                )
                assert same_bits(checkpoint.read(name, index), tensor[index]), (name, index)

    @pytest.mark.parametrize(
        "index",
        [
            (slice(0, 4, 2),),
            (slice(None, None, -1),),
            (70,),
            (-71,),
            (0, 0, 0),
            (slice(0, 1), "a"),
            (slice("a", None),),
            (slice(0, 4, 0),),
            [0],
            (...,),
            (1.5,),
        ],
    )
    def test_index_that_does_not_fit_is_an_input_error(self, checkpoint, index):
        with pytest.raises(InputError, match="'matrix'") as error:
            checkpoint.read("matrix", index)
        assert error.value.hint

    def test_unknown_name_is_an_input_error_with_a_suggestion(self, checkpoint):
        with pytest.raises(InputError, match="no tensor 'matrx'") as error:
            checkpoint.read("matrx")
        assert "'matrix'" in error.value.hint

    def test_headers_cannot_be_changed(self, checkpoint):
        with pytest.raises(TypeError):
            checkpoint.tensors["matrix"] = None
        with pytest.raises(AttributeError):
            checkpoint.tensors["matrix"].shape = (1,)

    def test_fingerprint_is_that_of_the_same_weights_in_memory(self, checkpoint, state):
        assert checkpoint_fingerprint(checkpoint) == checkpoint_fingerprint(from_state_dict(state))

    def test_reads_from_threads(self, checkpoint, state):
        names = [name for name in state for _ in range(8)]
        random.Random(0).shuffle(names)
        with ThreadPoolExecutor(4) as pool:
            for name, tensor in zip(names, pool.map(checkpoint.read, names), strict=True):
                assert same_bits(tensor, state[name])

    def test_pickled_copy_reads_the_same(self, checkpoint, state):
        with pickle.loads(pickle.dumps(checkpoint)) as copy:
            assert copy.tensors == checkpoint.tensors
            assert (copy.source, copy.config) == (checkpoint.source, checkpoint.config)
            assert same_bits(copy.read("matrix"), state["matrix"])

    def test_closed_checkpoint_says_so_and_keeps_what_was_read(self, checkpoint, state):
        matrix, part = checkpoint.read("matrix"), checkpoint.read("vector", (slice(9),))
        with checkpoint:
            pass
        checkpoint.close()
        assert same_bits(matrix, state["matrix"])
        assert same_bits(part, state["vector"][:9])
        with pytest.raises(InputError, match="closed"):
            checkpoint.read("matrix")


class UsualTypes(Contract):
    """The tests, for a format that lacks the rarer types."""

    @pytest.fixture
    def state(self):
        generator = torch.Generator().manual_seed(3)
        matrix = torch.randn(70, 50, generator=generator)
        return {"matrix": matrix, "vector": torch.randn(3000, generator=generator),
                "half": matrix.half(), "double": matrix.double(), "scalar": torch.tensor(977),
                "bfloat": matrix.bfloat16(), "empty": torch.zeros(0, 4),
                "flags": torch.tensor([True, False])}  # fmt: skip


class TestFiles(Contract):
    @pytest.fixture
    def checkpoint(self, write, state, tmp_path: Path):
        with open_checkpoint(write(state, tmp_path)) as checkpoint:
            yield checkpoint

    def test_files_are_those_that_hold_the_tensors(self, checkpoint: Checkpoint, tmp_path):
        for info in checkpoint.tensors.values():
            assert info.file is not None
            assert Path(info.file).parent == tmp_path
            assert Path(info.file).is_file()

    def test_wrappers_prefixes_are_taken_off(self, write, state, tmp_path):
        inner = tmp_path / "wrapped"
        inner.mkdir()
        wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
        with open_checkpoint(write(wrapped, inner)) as checkpoint:
            assert set(checkpoint.tensors) == set(state)
            assert same_bits(checkpoint.read("matrix"), state["matrix"])
            plain = checkpoint_fingerprint(from_state_dict(state))
            assert checkpoint_fingerprint(checkpoint) == plain

    def test_prefix_that_not_all_share_stays(self, write, state, tmp_path):
        inner = tmp_path / "half"
        inner.mkdir()
        some = {"module.a": state["matrix"], "b": state["vector"]}
        with open_checkpoint(write(some, inner)) as checkpoint:
            assert set(checkpoint.tensors) == set(some)


class TestStateDict(Contract):
    @pytest.fixture
    def format_name(self):
        return "memory"

    @pytest.fixture
    def checkpoint(self, state):
        return from_state_dict(state, config={"model_type": "planted"}, name="planted")

    def test_pickled_copy_reads_the_same(self, state):
        # PyTorch itself cannot unpickle float8 tensors.
        plain = {name: tensor for name, tensor in state.items() if "float8" not in name}
        super().test_pickled_copy_reads_the_same(from_state_dict(plain), plain)

    def test_nothing_is_copied(self, checkpoint, state):
        assert checkpoint.read("matrix").data_ptr() == state["matrix"].data_ptr()

    def test_source_and_config_are_those_given(self, checkpoint):
        assert checkpoint.source == "planted"
        assert checkpoint.config == {"model_type": "planted"}
        assert checkpoint.tensors["matrix"].file is None

    def test_parameters_come_without_gradient(self):
        layer = torch.nn.Linear(3, 2)
        checkpoint = from_state_dict(dict(layer.named_parameters()))
        assert not checkpoint.read("weight").requires_grad

    @pytest.mark.parametrize("mapping", [{}, {"epoch": 3}, {0: torch.ones(1)}, [torch.ones(1)], 7])
    def test_what_holds_no_tensors_is_an_input_error(self, mapping):
        with pytest.raises(InputError) as error:
            from_state_dict(mapping)
        assert error.value.hint

    def test_tensors_without_values_are_an_input_error(self):
        with pytest.raises(InputError, match="meta device"):
            from_state_dict(torch.nn.Linear(2, 2, device="meta").state_dict())
