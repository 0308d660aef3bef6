"""Estimates of time and memory: counted work against what is called, and the arithmetic of both."""

import tracemalloc
import weakref
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from engine.models import LARGE_LLAMA, gpt2, large_llama, llama
from engine.scans import OnDisk, graph_of, planned, run, tasks_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine import estimated, run_scan
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan import estimate
from flagscope.engine.plan.estimate import PAIR_RECORD, _computing, most_cached, read_rate
from flagscope.engine.plan.rates import Rates, measured_rates
from flagscope.engine.plan.tasks import plan
from flagscope.engine.plan.work import (
    Work,
    eigenproblem,
    product,
    singular_values,
    stored,
    total,
    triangular,
)
from flagscope.engine.run.execute import execute
from flagscope.engine.settings import Settings
from flagscope.records import PairRecord

KINDS = {"eigh": "eigh", "eigvalsh": "eigvalsh", "svdvals": "svdvals"}


def test_work_adds_up():
    work = total([product(2, 3, 4), product(2, 5, 7), eigenproblem(10).times(3), stored(6)])
    assert work.amounts[("product", 2)] == 2 * (24 + 70)
    assert work.amounts[("eigh", 10)] == 3
    assert work.flops == 188 + 3 * 9 * 1000
    assert (work + work).flops == work.times(2).flops == 2 * work.flops


@pytest.mark.parametrize(("m", "n"), [(3, 12), (12, 3)])
def test_work_of_oblong_matrices_is_counted_by_their_short_side(m, n):
    assert singular_values(m, n).amounts == {("svdvals", 3): 4.0}
    # Householder's, with Q formed: 4 m n r - 4/3 r³ (Golub and Van Loan, section 5.2).
    assert triangular(m, n).amounts == {("qr", 3): 4 * 36 * 3 - 36}
    assert product(m, n, m).amounts == {("product", 3): 2 * 36 * m}


def with_profiles(checkpoint, *, every):
    """The checkpoint with a direction that stands out, and scales along rows and columns, which
    repeat so that heads have them in common too."""
    scales = torch.linspace(-1.2, 1.2, every).exp()

    def scaled(w):
        rows, columns = (scales.repeat(-(-n // every))[:n] for n in w.shape)
        return ((w.float() + 1) * rows[:, None] * columns).to(w.dtype)

    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    return from_state_dict(
        {name: scaled(w) if w.ndim == 2 else w for name, w in state.items()},
        config=checkpoint.config,
    )


@pytest.mark.parametrize("part", ["pairs", "residual"])
def test_the_decompositions_of_a_task_are_counted(part, monkeypatch):
    """By watching the calls; the kinds are what estimates rest on.

    Of a network whose coordinates have scales in common, so that p-values are small and all pairs
    are measured once more without them, as estimates take them to be.
    """
    checkpoint = with_profiles(llama(layers=2, d=48, f=80), every=12)
    settings = Settings(device="cpu", only=(part,), edges=0)
    seen = Counter()

    def watched(kind, call):
        def counting(a, *args, **options):
            seen[kind] += a[..., 0, 0].numel()
            return call(a, *args, **options)

        return counting

    for kind in KINDS:
        monkeypatch.setattr(torch.linalg, kind, watched(kind, getattr(torch.linalg, kind)))
    tasks = tasks_of(checkpoint, only=(part,), edges=0)
    outcomes = [execute(task, TensorCache(checkpoint, [task]), settings) for task in tasks]
    counted = Counter()
    for task in tasks:
        for (kind, _), amount in task.work.amounts.items():
            if kind in KINDS:
                counted[kind] += amount
    pairs = [pair for outcome in outcomes for pair in outcome.pairs]
    assert pairs
    assert all(pair.overlap_test.log10_p_profile is not None for pair in pairs)
    assert counted["eigh"] == pytest.approx(seen["eigh"], rel=0.35)
    values = counted["eigvalsh"] + counted["svdvals"], seen["eigvalsh"] + seen["svdvals"]
    assert values[0] == pytest.approx(values[1], rel=0.5)


def table(law, sizes=(32, 128, 512)):
    return {size: law(size) for size in sizes}


def test_rates_between_and_beyond_the_sizes_timed():
    cubic = Rates({"eigh": table(lambda n: 3e-9 * n**3), "product": table(lambda _: 1e-11)})
    for n in (8, 32, 100, 512, 5000):
        expected = 3e-9 * max(n, 32) ** 3  # below, the call takes the time
        assert cubic.of(eigenproblem(n).times(2)) == pytest.approx(2 * expected, rel=1e-9)
    assert cubic.of(product(4000, 4000, 4000)) == pytest.approx(1e-11 * 2 * 4000**3)


def test_every_kind_of_work_has_a_rate():
    rates = measured_rates(2, 1)
    for task in tasks_of(llama(), only=("pairs", "heads", "residual")):
        assert rates.of(task.work) > 0
        for kind, size in task.work.amounts:
            assert rates.of(Work({(kind, size): 1.0})) > 0
    assert measured_rates(2, 1) is rates


def test_a_scan_ends_with_its_longest_task_or_when_all_slots_are_done(monkeypatch):
    asked = []

    def seconds(workers, threads):
        asked.append((workers, threads))
        return SimpleNamespace(of=lambda work: work / threads)

    monkeypatch.setattr(estimate, "measured_rates", seconds)

    def end(*tasks, workers=2, cores=2):
        works = [SimpleNamespace(work=float(work)) for work, _ in tasks]
        return _computing(works, [slots for _, slots in tasks], workers, cores)

    assert end((3, 1), (3, 1), (2, 1)) == 4
    assert end((9, 1), (1, 1)) == 9
    # A task that takes both slots has both cores.
    assert end((2, 1), (2, 1), (6, 2)) == 2 + 3
    assert end() == 0
    assert set(asked) == {(2, 1), (1, 2)}
    # More tasks at once than cores are no faster.
    assert end((1, 1), (1, 1), (1, 1), (1, 1), workers=4) == end((1, 1), (1, 1), (1, 1), (1, 1))


def test_what_is_held_is_foretold():
    checkpoint = OnDisk(llama(layers=5))
    tasks = planned(checkpoint)
    with TensorCache(checkpoint, tasks) as tensors:
        run(tasks, tensors)
        assert 0.5 * most_cached(tasks) < tensors.cache.most_bytes <= 1.1 * most_cached(tasks)


def test_the_disk_is_timed_by_the_largest_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 4096)
    info = SimpleNamespace(file=str(path), nbytes=2**20)
    assert read_rate({"a": info}) > 0
    assert read_rate({"a": SimpleNamespace(file=None, nbytes=5)}) is None
    assert read_rate({"a": SimpleNamespace(file="s3://bucket/a", nbytes=5)}) is None
    with path.open("r+b") as file:
        file.truncate(2**30)
    assert read_rate({"a": info}) is None  # holes are read at no cost


def test_records_take_what_is_counted_for_them():
    checkpoint = gpt2(layers=1, d=128)
    pairs = run_scan(checkpoint, graph_of(checkpoint), Settings(device="cpu")).pairs
    texts = [pair.model_copy(update={"incidence": None}).model_dump_json() for pair in pairs]
    tracemalloc.start()
    try:
        kept = [PairRecord.model_validate_json(text) for text in texts]
        size = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    assert size == pytest.approx(PAIR_RECORD, rel=0.4)


def test_heads_are_estimated_in_the_precision_they_are_measured_in():
    # Of 512 dimensions, so that mixed precision is single.
    checkpoint = gpt2(layers=1, d=512)
    seconds = {
        precision: measured_rates(1, 1).of(
            total(task.work for task in tasks_of(checkpoint, only=("heads",), precision=precision))
        )
        for precision in ("mixed", "float32", "float64")
    }
    assert seconds["mixed"] == seconds["float32"] < seconds["float64"]


def test_an_estimate_says_what_it_rests_on(monkeypatch):
    checkpoint = llama()
    tasks = tasks_of(checkpoint)
    found = estimated(tasks, checkpoint.tensors, workers=1)
    assert found.seconds > 0
    assert found.seconds_reading is None
    assert any("not known" in text for text in found.assumptions)
    assert found.bytes_memory >= max(task.bytes_working for task in tasks)
    # Twice the layers take twice the time, whatever the machine.
    rates = measured_rates(1, torch.get_num_threads())
    monkeypatch.setattr(estimate, "measured_rates", lambda *_: rates)
    deep = llama(layers=12)
    more = estimated(tasks_of(deep), deep.tensors, workers=1)
    # The matrices of a task are no larger; the records of more pairs add up.
    pairs = [sum(len(pair.members) for task in tasks for pair in task.pairs)
             for tasks in (tasks, tasks_of(deep))]  # fmt: skip
    assert pairs[1] > pairs[0]
    added = more.bytes_memory - found.bytes_memory
    assert added == pytest.approx(PAIR_RECORD * (pairs[1] - pairs[0]), rel=0.05)
    assert 3.5 < more.seconds / estimated(tasks, checkpoint.tensors, workers=1).seconds < 5.5


class Held(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                self._take(tensor.untyped_storage())
        return out

    def _take(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key, size):
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("depth", ["full", "sharp"])
def test_tasks_hold_what_is_foretold(depth):
    settings = Settings(
        depth=depth, device="cpu", only=("pairs", "residual"), kinds=("mlp", "residual"), edges=0
    )
    checkpoint = from_state_dict(large_llama(), config=LARGE_LLAMA)
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph_of(checkpoint), settings, sizes)
    assert {task.sharp for task in tasks} == {depth == "sharp"}
    for task in tasks:
        with TensorCache(checkpoint, [task]) as tensors, Held() as held:
            execute(task, tensors, settings)
        assert 0.6 < held.most / task.bytes_working < 1.1, task.name


def test_reading_takes_the_bytes_of_all_pieces_over_the_rate(monkeypatch):
    checkpoint = llama()
    tasks = tasks_of(checkpoint)
    pieces = {piece: size for task in tasks for piece, size in task.pieces.items()}
    monkeypatch.setattr(estimate, "read_rate", lambda _: 1e3)
    found = estimated(tasks, checkpoint.tensors, workers=1)
    assert found.seconds_reading == pytest.approx(sum(pieces.values()) / 1e3)
    assert found.seconds >= found.seconds_reading
