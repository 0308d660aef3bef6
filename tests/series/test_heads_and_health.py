"""Curves of heads and of health: what is planted from a step on, and what chance gives."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import pytest

import flagscope
from flagscope.demo import checkpoints
from flagscope.errors import InputError
from flagscope.records import FaultyBlock, HeadPair, HeadRecord, Health, UnitFaults
from flagscope.records.series import SeriesCurve, SeriesRecord
from flagscope.series.head_curves import head_curves, heads_over_steps
from flagscope.series.health_curves import health_curves
from flagscope.series.kept import KeptSteps
from flagscope.series.near_copies import near_copies
from flagscope.series.places import places
from series.gpts import RANK, SHAPE, dead_head, dead_neurons, equal_keys, gpts, saved_gpts
from series.made import mlp, saved

SINCE = [4.0] * 3 + [3.0] * 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = gpts(0, plants=[equal_keys, dead_neurons, dead_head])
    return saved_gpts(run, tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def record(planted: Path) -> SeriesRecord:
    return flagscope.track(planted).result


@cache
def _scanned() -> flagscope.Report:
    return flagscope.scan(checkpoints()[0], only=("heads", "health"), progress=False)


def curve(record: SeriesRecord, pair: str, observable: str) -> SeriesCurve:
    (found,) = [one for one in record.curves if (one.pair, one.observable) == (pair, observable)]
    return found


def test_two_heads_become_near_copies_at_the_step_at_which_they_are_planted(
    record: SeriesRecord,
) -> None:
    keys = curve(record, "layer.1.heads.k", "distinct_heads")
    assert keys.values == SINCE
    assert keys.low == keys.high == [4.0] * 6
    assert (keys.part, keys.kind, keys.layer, keys.label) == ("heads", "k", 1, "functional")
    closest = curve(record, "layer.1.heads.k", "max_pair_ratio")
    assert closest.low == closest.high == [None] * 6
    copy = SHAPE.n_embd / RANK
    known = [value for value in closest.values if value is not None]
    assert max(known[:3]) < 0.5 * copy
    assert min(known[3:]) > 0.85 * copy
    # A head without output weights has no space: the heads of its layer have no number.
    assert {
        one.pair for one in record.curves
        if one.observable == "distinct_heads" and one.values != [4.0] * 6
    } == {"layer.1.heads.k", "layer.1.heads.o"}  # fmt: skip
    assert curve(record, "layer.1.heads.o", "distinct_heads").values == [4.0] * 3 + [None] * 3
    (onset,) = [one for one in record.onsets if one.of == "near_copies"]
    assert (onset.pair, onset.kind, onset.layer, onset.heads) == ("layer.1.heads.k", "k", 1, (0, 2))
    assert (onset.answer, onset.after_number, onset.by_number) == ("between", 20, 30)
    assert (onset.steps, onset.steps_with) == (6, 3)


def test_the_overlap_and_the_shared_directions_leave_chance_with_them(record: SeriesRecord) -> None:
    ratio = curve(record, "layer.1.heads.k", "head_overlap_ratio")
    high = next(end for end in ratio.high if end is not None)
    assert [value is not None and value > high for value in ratio.values] == [False] * 3 + [
        True
    ] * 3
    shared = curve(record, "layer.1.heads.k", "shared_directions")
    assert shared.low == shared.high == [0.0] * 6


def test_dead_neurons_and_heads_are_counted_from_the_step_on(record: SeriesRecord) -> None:
    for pair, observable, count in (
        ("network", "dead_neurons", 7.0), ("network", "dead_heads", 1.0),
        ("layer.0.mlp", "dead_neurons", 7.0), ("layer.1.heads", "dead_heads", 1.0),
        ("network", "not_finite", 0.0),
    ):  # fmt: skip
        found = curve(record, pair, observable)
        assert found.values == [0.0] * 3 + [count] * 3
        assert found.low == found.high == [None] * 6
        assert (found.part, found.label) == ("health", None)
    blocks = {one.pair for one in record.curves if one.part == "health"}
    assert blocks == {"network", "layer.0.mlp", "layer.1.heads"}
    assert curve(record, "layer.0.mlp", "dead_neurons").kind == "mlp"


def test_curves_of_heads_are_what_a_scan_of_each_step_finds(
    record: SeriesRecord, planted: Path
) -> None:
    for place, step in enumerate(record.steps):
        result = flagscope.scan(planted / step.name, progress=False).result
        for heads in result.heads:
            pair = f"layer.{heads.layer}.heads.{heads.space}"
            for observable, value in (
                ("head_overlap_ratio", heads.overlap_ratio),
                ("max_pair_ratio", heads.max_pair_ratio),
                ("shared_directions", heads.shared_directions),
            ):
                assert curve(record, pair, observable).values[place] == value
        assert result.health is not None
        assert curve(record, "network", "dead_neurons").values[place] == result.health.units[0].dead


def test_random_weights_stay_within_chance_and_nothing_is_claimed(tmp_path: Path) -> None:
    curves: list[SeriesCurve] = []
    for seed in range(4):
        # A walk of this size leaves nothing of the weights before it.
        folder = saved_gpts(gpts(seed, steps=4, walk=1.0), tmp_path / str(seed))
        found = flagscope.track(folder, only=("heads", "health")).result
        assert [one for one in found.onsets if one.of == "near_copies"] == []
        curves += found.curves
    ratios = [
        (value - 1) / ((high - 1) / 1.96)
        for one in curves
        if one.observable == "head_overlap_ratio"
        for value, high in zip(one.values, one.high, strict=True)
        if value is not None and high is not None
    ]
    assert len(ratios) == 4 * 4 * 2 * 4
    error = len(ratios) ** -0.5
    assert abs(fmean(ratios)) < 4 * error
    assert abs(fmean(ratio**2 for ratio in ratios) - 1) < 4 * error * 2**0.5
    outside = sum(abs(ratio) > 1.96 for ratio in ratios)
    assert outside < 0.05 * len(ratios) + 4 * (0.05 * len(ratios)) ** 0.5
    for one in curves:
        if one.observable == "distinct_heads":
            assert one.values == one.low == one.high == [4.0] * 4
    shared = [value for one in curves if one.observable == "shared_directions"
              for value in one.values]  # fmt: skip
    assert (
        sum(value != 0 for value in shared) < 0.01 * len(shared) + 4 * (0.01 * len(shared)) ** 0.5
    )
    assert all(one.values == [0.0] * 4 for one in curves if one.part == "health")


def test_parts_are_chosen_as_in_a_scan(planted: Path) -> None:
    def parts(**chosen: object) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for one in flagscope.track(planted, **chosen).result.curves:  # type: ignore[arg-type]
            found.setdefault(one.part, set()).add(one.kind)
        return found

    assert parts(only="pairs") == {"pairs": {"qk", "ov", "mlp"}}
    assert parts(only="heads") == {"heads": {"q", "k", "v", "o"}}
    assert parts(only=("health", "residual"), kinds="residual") == {
        "pairs": {"residual"}, "health": {"network", "mlp", "heads"}
    }  # fmt: skip
    # Kinds are of pairs, as in a scan.
    assert parts(kinds="mlp", only=("pairs", "heads")) == {
        "pairs": {"mlp"}, "heads": {"q", "k", "v", "o"}
    }  # fmt: skip
    chosen = flagscope.track(planted, only="heads", layers=1).result
    assert {one.layer for one in chosen.curves} == {1}
    assert chosen.notes == [note for note in chosen.notes if "No pair" not in note]
    with pytest.raises(InputError, match="only"):
        flagscope.track(planted, only="head")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="only names no part"):
        flagscope.track(planted, only=())


def test_a_store_gives_the_same_bytes_and_none_of_other_parts(
    planted: Path, record: SeriesRecord, tmp_path: Path
) -> None:
    fresh = flagscope.SeriesReport(record).to_json(paths=True)
    store = tmp_path / "store"
    # As kept by releases that scanned pairs alone: their key had no parts.
    key = {"layers": None, "kinds": None, "family": None, "heads": None, "config": None,
           "version": version("flagscope")}  # fmt: skip
    older = KeptSteps(store)
    for place in places([planted]):
        pairs = flagscope.scan(place.source, only="pairs", edges=0, progress=False)
        older.keep(place, key, pairs.result.model_dump_json(by_alias=True))
    assert flagscope.track(planted, store=store, only="pairs").to_json(paths=True) != fresh
    assert flagscope.track(planted, store=store, only="heads").result.rates[0].rates == []
    for _ in range(2):
        assert flagscope.track(planted, store=store).to_json(paths=True) == fresh


def test_several_trainings_have_bands_of_heads_and_of_health(tmp_path: Path) -> None:
    for seed in range(2):
        plants = [equal_keys, dead_neurons] if seed else []
        saved_gpts(gpts(seed, steps=3, since=1, plants=plants), tmp_path / f"seed-{seed}")
    record = flagscope.track(f"{tmp_path}/*", only=("heads", "health")).result
    assert record.runs is not None
    known = {(one.pair, one.observable): one for one in record.runs.bands}
    heads = known["layer.1.heads.k", "distinct_heads"]
    assert (heads.part, heads.mean, heads.low) == ("heads", [4.0, 3.5, 3.5], [4.0, 3.0, 3.0])
    neurons = known["layer.0.mlp", "dead_neurons"]
    assert (neurons.part, neurons.mean, neurons.high) == (
        "health", [0.0, 3.5, 3.5], [0.0, 7.0, 7.0]
    )  # fmt: skip
    (onset,) = [one for one in record.onsets if one.of == "near_copies"]
    assert (onset.run, onset.by) == ("seed-1", "seed-1/checkpoint-10")


def test_a_network_without_heads_has_counts_of_neurons_alone(tmp_path: Path) -> None:
    run = mlp(0, steps=3)
    run[1][1]["6.weight"][0, 0] = float("nan")
    run[2][1]["2.weight"][:5] = 0
    run[2][1]["2.bias"][:5] = 0
    run[2][1]["4.weight"][:, :5] = 0
    record = flagscope.track(saved(run, tmp_path), only="health").result
    values = {(one.pair, one.observable): one.values for one in record.curves}
    assert ("network", "dead_heads") not in values
    assert values["network", "not_finite"] == [0.0, 1.0, 0.0]
    assert values["network", "dead_neurons"] == [0.0, 0.0, 5.0]
    assert values["2-4", "dead_neurons"] == [0.0, 0.0, 5.0]


def _units(listed: dict[str, int], *, faulty: int, check: str = "neurons") -> Health:
    block = FaultyBlock(
        name="", stack="decoder", kind="mlp", attention=None, layer=0, write="", read="", units=9,
        dead=0, no_output=0, no_input=0, copies=0, where="",
    )  # fmt: skip
    blocks = [block.model_copy(update={"name": name, "dead": dead, "no_output": dead, "copies": 1})
              for name, dead in listed.items()]  # fmt: skip
    units = UnitFaults(
        check=check, blocks=20, units=180, stacks=[], faulty_blocks=faulty, listed=blocks,  # type: ignore[arg-type]
        dead=sum(listed.values()), no_output=sum(listed.values()), no_input=0,
    )  # fmt: skip
    health = _scanned().result.health
    assert health is not None
    return health.model_copy(update={"units": [units]})


def test_a_block_that_a_full_list_leaves_out_has_no_number() -> None:
    def values(*steps: Health | None, name: str = "b") -> list[float | None]:
        return next(one.values for one in health_curves(steps) if one.pair == name)

    first = _units({"a": 3, "b": 2}, faulty=2)
    assert values(first, _units({"a": 3}, faulty=1), None) == [2, 0, None]
    assert values(first, _units({"a": 3}, faulty=2)) == [2, None]  # another block may be b
    assert values(first, _units({"a": 3, "c": 0}, faulty=9)) == [2, 0]  # those with dead ones first
    unclear = [_units({"a": 3, "b": 2}, faulty=2, check="unclear-neurons"),
               _units({"a": 3, "c": 0}, faulty=9, check="unclear-neurons")]  # fmt: skip
    assert values(*unclear) == [2, None]
    assert [one.pair for one in health_curves([_units({"a": 0}, faulty=1)])] == ["network"] * 2


def _heads(**changes: object) -> HeadRecord:
    return _scanned().result.heads[0].model_copy(update=changes)


def test_names_say_the_stack_where_there_are_several_and_cross_attention() -> None:
    cross = _heads(attention="cross", layer=3, space="v")
    assert list(heads_over_steps([[_heads(), cross], []])) == [
        "layer.0.heads.q", "layer.3.cross.heads.v"
    ]  # fmt: skip
    found = heads_over_steps([[_heads()], [_heads(stack="encoder"), cross]])
    assert found == {
        "decoder.layer.0.heads.q": [_heads(), None],
        "encoder.layer.0.heads.q": [None, _heads(stack="encoder")],
        "decoder.layer.3.cross.heads.v": [None, cross],
    }
    single = _heads(overlap_ratio=None, max_pair_ratio=None, clusters=None, shared_directions=None)
    assert head_curves([[single], []]) == []


def test_near_copies_are_close_and_beyond_chance(record: SeriesRecord) -> None:
    steps = record.steps[:2]
    pair = {"heads": (0, 1), "overlap_ratio": 3.0, "log10_p": -9.0, "p_familywise": 0.05,
            "shared": 1, "rank": RANK, "mean_squared_cosine": 0.75}  # fmt: skip

    def answers(**changes: object) -> list[str]:
        near = _heads(near_copies=[HeadPair(**{**pair, **changes})])  # type: ignore[arg-type]
        return [one.answer for one in near_copies(steps, [[_heads()], [near]])]

    assert answers() == ["between"]
    assert answers(p_familywise=0.051) == answers(p_familywise=None) == []
    assert answers(overlap_ratio=2.0, mean_squared_cosine=0.5) == []  # a third of the way
