"""What `import flagscope` offers: the list of names, scan, inspect, and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path

import jsonschema
import pandas
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import flagscope
from flagscope.checkpoint.base import Checkpoint
from flagscope.errors import CorruptFileError, FlagscopeError, InputError, SourceError
from flagscope.schema import SCHEMA_FILE, scan_schema

PUBLIC = {
    "AlignmentMonitor",
    "ArchitectureError",
    "ComparisonReport",
    "CorruptFileError",
    "FamilyInfo",
    "FlagscopeError",
    "HeadOverlaps",
    "InputError",
    "Inspection",
    "MissingExtraError",
    "MissingFileError",
    "Report",
    "ScanResult",
    "SeriesReport",
    "track",
    "SourceError",
    "StoreError",
    "UnknownDtypeError",
    "UnsafeFileError",
    "compare",
    "families",
    "head_overlaps",
    "inspect",
    "reparameterize",
    "scan",
}


def sequential(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def attention(*, heads: int = 4, d: int = 16) -> dict[str, Tensor]:
    """One block of a GPT-2: Q, K and V in one tensor."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d)}
    shapes |= {"mlp.c_proj": (4 * d, d)}
    return {
        f"h.0.{name}.weight": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_head": 4, "n_layer": 1}


@pytest.fixture(scope="module")
def report() -> flagscope.Report:
    return flagscope.scan(attention(), config=GPT2)


# Names


def test_the_public_names_are_these_and_at_most_25() -> None:
    assert set(flagscope.__all__) == PUBLIC
    assert len(flagscope.__all__) == len(PUBLIC) <= 25
    assert set(dir(flagscope)) == PUBLIC | {"__version__"}
    for name in PUBLIC:
        assert getattr(flagscope, name) is not None


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scam'"):
        flagscope.scam  # noqa: B018


def test_import_alone_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "scipy", "pandas", "pydantic", "plotly", "rich", "click"}
    code = "import sys, flagscope; dir(flagscope); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "flagscope" in loaded
    assert not heavy & set(loaded)


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert flagscope.__version__ == version("flagscope")


# Sources


def test_sources_agree(tmp_path: Path) -> None:
    net = sequential()
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path)
    relu = {"activation": "relu"}
    reports = [
        flagscope.scan(net),
        flagscope.scan(net.state_dict(), config=relu),
        flagscope.scan(path, config=relu),
        flagscope.scan(str(path), config=relu),
    ]
    first, *others = (
        report.result.model_dump(exclude={"run", "source", "family", "notes"}, by_alias=True)
        for report in reports
    )
    assert all(other == first for other in others)
    assert [report.result.family for report in reports] == ["traced", "mlp", "mlp", "mlp"]
    assert [report.result.source for report in reports][:2] == ["Sequential", "state_dict"]


@pytest.mark.parametrize(
    ("layer", "freedom"), [(nn.ReLU(), "scaling"), (nn.GELU(), "permutation"), (None, "gl")]
)
def test_a_sequential_tells_what_lies_between(layer: nn.Module | None, freedom: str) -> None:
    between = [layer] if layer is not None else []
    net = nn.Sequential(nn.Linear(4, 6), *between, nn.Dropout(), nn.Linear(6, 4))
    assert flagscope.scan(net).result.pairs[0].freedom == freedom


def test_a_module_is_traced_on_inputs_given_or_assumed() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    for given in (None, torch.zeros(3, 4)):
        result = flagscope.scan(net, example_inputs=given).result
        assert [pair.freedom for pair in result.pairs] == ["scaling", "permutation"]
        assert any("assumed for tracing" in note for note in result.notes) == (given is None)
    with pytest.raises(InputError, match="example_inputs"):
        flagscope.inspect(net.state_dict(), example_inputs=torch.zeros(3, 4))


def test_a_module_is_left_as_it_was() -> None:
    net = sequential().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flagscope.scan(net)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("source", [3, None, [1], b"model"])
def test_a_source_of_the_wrong_type(source: object) -> None:
    with pytest.raises(InputError, match=type(source).__name__) as caught:
        flagscope.scan(source)  # pyright: ignore[reportArgumentType]
    assert "nn.Module" in (caught.value.hint or "")


def test_names_that_are_no_text() -> None:
    with pytest.raises(CorruptFileError, match="not valid text"):
        flagscope.scan({"\udcff.0.weight": torch.eye(3), "\udcff.2.weight": torch.eye(3)})


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_a_path_that_is_not_valid_text_is_written_with_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "net\udcff.safetensors"
    save_file(sequential().state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").rename(path)
    report, found = flagscope.scan(path), flagscope.inspect(path)
    assert json.loads(report.to_json())["source"] == "net?.safetensors"
    assert json.loads(found.to_json())["source"] == "net?.safetensors"
    page = tmp_path / "page.html"
    report.to_html(page)
    assert "net?.safetensors" in page.read_text(encoding="utf-8")
    assert "net?.safetensors" in repr(report)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"only": ()}, "no part"),
        ({"only": ("pairs", "tails")}, "tails"),
        ({"only": "tails"}, "tails"),
        ({"rank": "half"}, "half"),
        ({"fdr": 0.0}, "fdr"),
        ({"fdr": float("nan")}, "fdr"),
        ({"heads": 0}, "heads"),
        ({"workers": 0}, "workers"),
        ({"memory": -1}, "memory"),
        ({"fold_norms": "some"}, "fold_norms"),
        ({"precision": "float16"}, "precision"),
        ({"seed": "one"}, "seed"),
        ({"device": "abacus"}, "abacus"),
        ({"family": "lama"}, "lama"),
        ({"revision": "main"}, "revision"),
        ({"config": 3}, "config"),
    ],
)
def test_bad_arguments_say_what_to_do(arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        flagscope.scan(sequential(), **arguments)
    assert caught.value.hint
    if arguments.keys() <= signature(flagscope.inspect).parameters.keys():
        with pytest.raises(InputError, match=said):
            flagscope.inspect(sequential(), **arguments)


def test_a_missing_file_is_a_source_error(tmp_path: Path) -> None:
    for function in (flagscope.scan, flagscope.inspect):
        with pytest.raises(SourceError) as caught:
            function(tmp_path / "nowhere.pt")
        assert isinstance(caught.value, FlagscopeError)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("only", "pairs", "heads"),
    [("pairs", 9, 0), ("heads", 0, 4), (("pairs", "heads"), 9, 4), (["residual"], 0, 0)],
)
def test_parts(only, pairs: int, heads: int) -> None:
    found = flagscope.scan(attention(), config=GPT2, only=only)
    assert (len(found.pairs), len(found.heads)) == (pairs, heads)


def test_heads_where_no_config_tells(report: flagscope.Report) -> None:
    told = flagscope.scan(attention(), heads=4, family="gpt2").result
    assert [pair.name for pair in told.pairs] == [pair.name for pair in report.result.pairs]


def test_workers_and_executors_change_nothing(report: flagscope.Report) -> None:
    with ThreadPoolExecutor(2) as pool:
        for settings in ({"workers": 1}, {"workers": 3}, {"executor": pool}):
            other = flagscope.scan(attention(), config=GPT2, **settings)
            assert other.result.model_copy(update={"run": report.result.run}) == report.result


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[int, int, str]] = []
    flagscope.scan(attention(), config=GPT2, progress=lambda *call: calls.append(call))
    # Attention, MLP and the health of the weights.
    assert [done for done, _, _ in calls] == [1, 2, 3]
    assert {total for _, total, _ in calls} == {3}


# Inspection


def test_inspect_reads_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    save_file(sequential().state_dict(), path)
    read: list[object] = []
    for reader in (Checkpoint, *Checkpoint.__subclasses__()):
        for name in {"read", "_read"} & set(vars(reader)):
            monkeypatch.setattr(reader, name, lambda *call: read.append(call))
    found = flagscope.inspect(path)
    assert [task.name for task in found.tasks] == ["0-2", "2-4", "health"]
    assert found.parameters == 8 * 12 + 12 + 12 * 12 + 12 + 12 * 3 + 3
    assert found.source == str(path)
    assert read == []


def test_json_is_indented_by_one_space(report: flagscope.Report) -> None:
    for text in (report.to_json(), flagscope.inspect(attention(), config=GPT2).to_json()):
        assert text.startswith('{\n "')


def test_inspect_foretells_the_scan(report: flagscope.Report) -> None:
    found = flagscope.inspect(attention(), config=GPT2)
    names = [member.name for group in found.graph.pairs for member in group.members]
    assert sorted(names) == sorted(report.pairs["name"])
    assert found.parameters == report.result.parameters
    sizes = sum(tensor.nbytes for tensor in attention().values())
    assert found.bytes_read == sizes


# The report


@pytest.mark.parametrize(("width", "depth", "both"), [(1100, "auto", True), (1100, "full", False),
                                                      (40, "auto", False)])  # fmt: skip
def test_inspect_estimates_the_full_scan_next_to_a_sharp_one(width, depth, both) -> None:
    net = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    found = flagscope.inspect(net, depth=depth, estimate=True)
    assert found.estimate is not None
    assert (found.estimate_full is not None) == both
    assert flagscope.inspect(net, depth=depth).estimate_full is None
    assert (json.loads(found.to_json())["estimate_full"] is not None) == both


def test_frames_have_a_row_a_record(report: flagscope.Report) -> None:
    assert report.pairs["name"].tolist() == [pair.name for pair in report.result.pairs]
    assert report.heads["space"].tolist() == [group.space for group in report.result.heads]
    assert report.pairs["commutator_ratio"].tolist() == [
        pair.commutator_ratio for pair in report.result.pairs
    ]


def test_frames_have_sensible_types(report: flagscope.Report) -> None:
    types = report.pairs_all.dtypes
    for name in ("layer", "head", "kv_head", "d", "rank_write", "intersection_exact"):
        assert types[name] == "Int64", name
    for name in ("commutator_ratio", "overlap_z", "log10_p", "p_adjusted", "imbalance"):
        assert types[name] == "float64", name
    for name in ("name", "kind", "freedom", "status", "write_tensor"):
        assert pandas.api.types.is_string_dtype(types[name]), name
    assert types["write_transposed"] == "bool"
    types = report.heads.dtypes
    assert types["layer"] == types["count"] == types["shared_directions"] == "Int64"
    assert types["overlap_ratio"] == types["z"] == "float64"


def test_frames_have_twelve_columns_and_all_of_them(report: flagscope.Report) -> None:
    assert list(report.pairs.columns) == [
        "name", "kind", "layer", "head", "freedom", "overlap_ratio", "overlap_z",
        "gram_correlation", "commutator_ratio", "log10_p", "p_familywise", "status",
    ]  # fmt: skip
    assert len(report.heads.columns) == 12
    for few, every in ((report.pairs, report.pairs_all), (report.heads, report.heads_all)):
        assert len(every.columns) > 20
        pandas.testing.assert_frame_equal(few, every[few.columns])


def test_frames_without_rows_keep_their_columns(report: flagscope.Report) -> None:
    empty = flagscope.scan(attention(), config=GPT2, only="residual")
    assert set(empty.heads.columns) == set(report.heads.columns)
    assert {"name", "commutator_ratio", "log10_p", "status"} <= set(empty.pairs.columns)
    assert empty.findings


def test_figures_are_by_name(report: flagscope.Report) -> None:
    from plotly.graph_objects import Figure

    assert report.figures
    assert all(isinstance(name, str) and name for name in report.figures)
    assert all(isinstance(figure, Figure) for figure in report.figures.values())


def test_json_there_and_back(report: flagscope.Report, tmp_path: Path) -> None:
    text = report.to_json(tmp_path / "scan.json")
    assert (tmp_path / "scan.json").read_text("utf-8") == text == report.to_json()
    back = flagscope.Report.from_json(tmp_path / "scan.json")
    assert back.result == report.result
    assert back.to_json() == text
    pandas.testing.assert_frame_equal(back.pairs, report.pairs)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{", '{"schema": "flagscope.scan/9"}', "\0"])
def test_json_of_something_else(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"flagscope\.scan/2") as caught:
        flagscope.Report.from_json(path)
    assert caught.value.hint
    with pytest.raises(InputError):
        flagscope.Report.from_json(tmp_path / "nowhere.json")


def test_html(report: flagscope.Report, tmp_path: Path) -> None:
    page = report.to_html(tmp_path / "page.html")
    assert page.startswith("<!doctype html>")
    assert (tmp_path / "page.html").read_text("utf-8") == page


def test_notebooks_get_a_fragment_without_script(report: flagscope.Report) -> None:
    shown = report._repr_html_()
    assert "<svg" in shown
    assert "<script" not in shown
    assert len(shown) < 20_000


def test_markup_in_names_is_text_in_the_page() -> None:
    name = "<img src=x onerror=alert(1)>"
    found = flagscope.scan({f"{name}.{i}.weight": torch.eye(4) for i in (0, 2)})
    assert name not in found._repr_html_()
    assert name not in found.to_html()


def test_reprs_are_short(report: flagscope.Report) -> None:
    found = flagscope.inspect(attention(), config=GPT2)
    assert repr(found) == (
        "Inspection('state_dict', family='gpt2', 3.07 k parameters, 9 pairs, 4 head groups; a scan "
        "would measure 4 of 4 matrices in 3 tasks)"
    )
    assert repr(report.result) == (
        "ScanResult('state_dict', family='gpt2', 9 pairs, 4 head groups, 0 links, 0 failures)"
    )
    finding = report.findings[0]
    assert repr(finding).startswith(f"Finding({finding.code}, {finding.severity}")
    assert finding.text in repr(finding)
    assert repr(report.result.coverage) == (
        "Coverage(4 of 4 matrices measured, 3,072 of 3,072 parameters; 0 reasons why others were "
        "not)"
    )
    assert "spectrum=<16 entries>" in repr(report.result.heads[0])
    assert str(report.result) == repr(report.result)


def test_an_inspection_is_a_fragment_in_a_notebook() -> None:
    shown = flagscope.inspect(attention(), config=GPT2, estimate=True)._repr_html_()
    assert "A scan would measure 4 of 4 matrices, 100 % of the parameters." in shown
    assert "4 Query–key, 4 Value–output" in shown
    assert "on this machine" in shown
    assert "<script" not in shown
    name = "<img src=x onerror=alert(1)>"
    hostile = flagscope.inspect({f"{name}.{i}.weight": torch.eye(4) for i in (0, 2)})
    assert name not in hostile._repr_html_()


def test_repr_is_one_line(report: flagscope.Report) -> None:
    assert repr(report) == (
        "Report('state_dict', family='gpt2', measured 4 of 4 matrices, 100 % of the parameters, "
        "9 pairs, 4 head groups, 0 failures)"
    )


# The schema


def test_the_published_schema_is_up_to_date() -> None:
    published = json.loads(SCHEMA_FILE.read_text("utf-8"))
    assert published == scan_schema(), "run `python -m flagscope.schema --write`"


def test_the_published_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text("utf-8")))


def test_scans_follow_the_schema(report: flagscope.Report) -> None:
    check = jsonschema.Draft202012Validator(scan_schema())
    broken = attention() | {"h.0.mlp.c_fc.weight": torch.full((16, 64), torch.inf)}
    for found in (report, flagscope.scan(broken, config=GPT2), flagscope.scan(sequential())):
        content = json.loads(found.to_json())
        check.validate(content)
        check.validate(content | {"of_a_later_release": 1})


def test_the_schema_refuses_what_is_no_scan(report: flagscope.Report) -> None:
    check = jsonschema.Draft202012Validator(scan_schema())
    content = json.loads(report.to_json())
    for part in ("schema", "pairs", "heads", "run", "fingerprint"):
        assert not check.is_valid({key: value for key, value in content.items() if key != part})
    content["pairs"][0]["commutator_ratio"] = "large"
    assert not check.is_valid(content)


def test_the_schema_is_printed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from flagscope.schema.__main__ import main

    assert main([]) == 0
    assert capfdbinary.readouterr().out == SCHEMA_FILE.read_bytes()
    assert main(["--wrong"]) == 2
