"""The page: self-contained, within its size, safe with any name, and drawn without complaint."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flagscope.records import ScanResult
from flagscope.report import EXPLANATIONS, render_page, render_summary
from flagscope.report.head_figures import matrix_limit
from flagscope.report.links import MEASURES, beyond_chance
from flagscope.report.payload import DETAILED_PAIRS, core
from flagscope.report.wording import READ_WORDS
from report import synthetic
from report.dumped import driven, needs_chromium, opened


class _Elements(HTMLParser):
    """Counts tags and collects attributes that make a browser ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.requests: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        for name in ("src", "href", "action", "data", "poster"):
            value = values.get(name)
            if value is not None and not value.startswith("#"):
                self.requests.append(value)


def _parsed(page: str) -> _Elements:
    parser = _Elements()
    parser.feed(page)
    return parser


def _data(page: str, name: str) -> str:
    found = re.search(rf'id="data-{name}">([A-Za-z0-9+/=]*)</script>', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found.group(1))).decode()


def _without_data(page: str) -> str:
    return re.sub(r'(id="data-\w+">)[A-Za-z0-9+/=]*', r"\1", page)


def test_the_page_asks_for_nothing(any_result: ScanResult) -> None:
    page = render_page(any_result)
    assert _parsed(page).requests == []
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in _without_data(page)


def test_ids_are_unique(transformer: ScanResult) -> None:
    ids = _parsed(render_page(transformer)).ids
    assert len(ids) == len(set(ids))


def test_the_page_opens_with_the_pair_furthest_from_chance_and_the_layer_of_most_copies(
    transformer: ScanResult,
) -> None:
    page = core(transformer)
    for track in page["tracks"]:
        sizes = [abs(transformer.pairs[index].overlap_z or 0) for index in track["pairs"]]
        assert abs(transformer.pairs[track["first"]].overlap_z or 0) == max(sizes)
    first = [transformer.heads[space["first"]] for space in page["heads"]["spaces"]]
    assert [(group.space, group.layer) for group in first[:3]] == [("q", 4), ("k", 4), ("v", 9)]


def test_the_layers_of_a_space_of_heads_have_the_colours_of_the_furthest(
    transformer: ScanResult,
) -> None:
    heads = core(transformer)["heads"]
    for space in heads["spaces"]:
        ends = {heads["groups"][index]["matrix"]["data"][0]["zmax"] for index in space["groups"]}
        furthest = max(matrix_limit(transformer.heads[index]) for index in space["groups"])
        assert ends == {math.log2(furthest)}


def test_size_of_twelve_layers(transformer: ScanResult) -> None:
    assert len(render_page(transformer).encode()) < 4e6


def test_size_and_time_of_sixty_four_layers() -> None:
    result = synthetic.large()
    start = time.process_time()
    page = render_page(result)
    assert time.process_time() - start < 30
    assert len(page.encode()) < 8e6
    assert len(json.loads(_data(page, "details"))) == DETAILED_PAIRS


def test_size_of_thirty_two_layers_of_thirty_two_heads() -> None:
    assert len(render_page(synthetic.large(layers=32, heads=32)).encode()) < 6e6


def test_plotly_is_inside_once(transformer: ScanResult) -> None:
    page = render_page(transformer)
    assert "plotly.js v" in _data(page, "plotly")[:200]
    assert "Plotly, Inc" not in _without_data(page)


def test_every_pair_and_group_is_in_the_tables(transformer: ScanResult) -> None:
    core = json.loads(_data(render_page(transformer), "core"))
    pairs, heads = core["tables"]["pairs"], core["tables"]["heads"]
    assert [row[0][1] for row in pairs["rows"]] == [pair.name for pair in transformer.pairs]
    assert len(heads["rows"]) == len(transformer.heads)
    assert all(len(row) == len(pairs["columns"]) for row in pairs["rows"])
    assert all(len(row) == len(heads["columns"]) for row in heads["rows"])


def test_a_number_stands_with_its_null_its_label_and_its_balanced_value() -> None:
    result = synthetic.perceptron()
    core = json.loads(_data(render_page(result), "core"))
    keys = [column["key"] for column in core["tables"]["pairs"]["columns"]]
    cell = core["tables"]["pairs"]["rows"][0][keys.index("commutator_ratio")]
    value, _, chance, balanced, label = cell
    assert value == result.pairs[0].commutator_ratio
    assert chance.startswith("1 [0.860, 1.16]; p adjusted ")
    assert balanced != ""
    assert label == "G"


def test_every_diagnostic_is_explained(transformer: ScanResult) -> None:
    page = render_page(transformer)
    for explanation in EXPLANATIONS.values():
        for text in (explanation.title, explanation.misleads[:40]):
            assert text.replace("'", "&#39;") in page


def test_the_title_is_the_heading_and_names_what_is_saved() -> None:
    page = render_page(synthetic.perceptron(), title="A & <b>")
    assert "<title>A &amp; &lt;b&gt; · flagscope</title>" in page
    assert "<h1>A &amp; &lt;b&gt;</h1>" in page
    assert json.loads(_data(page, "core"))["model"] == "A & <b>"
    plain = render_page(synthetic.transformer(layers=1, heads=2, rank=4, d=16, planted=False))
    assert "<h1>all-example-L12-v2</h1>" in plain
    assert json.loads(_data(plain, "core"))["model"] == "all-example-L12-v2"


@pytest.mark.parametrize("render", [render_page, render_summary])
def test_hostile_names_stay_text(render) -> None:
    harmless = _parsed(render(synthetic.perceptron())).tags
    page = render(synthetic.hostile())
    tags = _parsed(page).tags
    assert "img" not in tags
    assert tags.count("script") == harmless.count("script")
    assert "&lt;/script&gt;&lt;img" in page
    assert "{{7*7}}" in page


def test_the_same_result_gives_the_same_page(any_result: ScanResult) -> None:
    assert render_page(any_result) == render_page(any_result)


def test_summary_is_small_and_has_no_script(any_result: ScanResult) -> None:
    fragment = render_summary(any_result)
    assert "<script" not in fragment
    assert len(fragment) < 20_000


@needs_chromium
@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("transformer", 13),
        ("resnet", 9),
        ("perceptron", 9),
        ("empty", 0),
        ("hostile", 14),
        ("stream", 17),
    ],
)
def test_a_browser_draws_the_figures_and_says_nothing(
    name: str, figures: int, tmp_path: Path
) -> None:
    document, console = opened(render_page(getattr(synthetic, name)()), tmp_path)
    assert console == ""
    root = re.search(r"<html[^>]*>", document)
    assert root is not None
    assert 'data-ready="true"' in root.group()
    assert "data-error" not in root.group()
    drawn = re.search(r'data-figures="(\d+)"', root.group())
    assert int(drawn.group(1) if drawn else 0) == figures
    assert "owned" not in re.sub(
        r"&lt;.*?&gt;", "", re.search(r"<title>.*?</title>", document, re.S).group()
    )  # type: ignore[union-attr]
    assert "<img" not in document


_DRIVE = """
<script>
const wait = setInterval(() => {
  if (document.documentElement.dataset.ready !== "true") return;
  clearInterval(wait);
  const click = (selector) => document.querySelector(selector).click();
  const said = {};
  const before = document.documentElement.dataset.theme;
  click("#theme");
  said.theme = before !== document.documentElement.dataset.theme;
  document.querySelectorAll("#track-tabs input")[2].click();
  said.chip = document.querySelector("[data-observable] [data-label]").textContent;
  click('[data-target^="heads/38"]');
  said.group = document.getElementById("group-title").textContent;
  document.querySelector("[data-table=pairs] [data-column='4'] button").click();
  said.largest = document.querySelector("[data-table=pairs] tbody th a").textContent;
  const search = document.querySelector("[data-table=pairs] input");
  search.value = "NaN";
  search.dispatchEvent(new Event("input"));
  said.found = document.querySelectorAll("[data-table=pairs] tbody tr").length;
  click("[data-table=pairs] tbody th a");
  said.pair = document.getElementById("pair-title").textContent;
  document.body.dataset.said = JSON.stringify(said);
}, 50);
</script>
"""


@needs_chromium
def test_controls_do_what_they_say(transformer: ScanResult, tmp_path: Path) -> None:
    said = driven(render_page(transformer), _DRIVE, tmp_path)
    largest = max(transformer.pairs, key=lambda pair: pair.commutator_ratio or 0)
    assert said == {
        "theme": True,
        "chip": "functional",
        "group": "Layer 9, value space",
        "largest": largest.name,
        "found": 1,
        "pair": transformer.pairs[5].name,
    }


_DRIVE_STREAM = """
<script>
const wait = setInterval(() => {
  const plot = document.getElementById("link-graph");
  if (document.documentElement.dataset.ready !== "true" || !plot.data) return;
  clearInterval(wait);
  const keys = () => plot.data.map((t) => (t.text ? "" : t.name ?? ""))
    .filter((name) => name.startsWith("to "));
  const shown = (name) => document.querySelector("[data-streamed] .plot").data
    .find((t) => t.name === name).visible;
  const said = { overlap: keys() };
  document.querySelectorAll("#link-tabs input")[1].click();
  document.querySelector("#writer-key button").click();
  const search = document.querySelector("[data-table=links] input");
  search.value = "L1H2.o L2H2.k";
  search.dispatchEvent(new Event("input"));
  said.found = document.querySelectorAll("[data-table=links] tbody tr").length;
  said.filters = document.querySelectorAll("[data-table=links] select").length;
  setTimeout(() => {
    said.remark = document.getElementById("link-remark").textContent;
    said.composition = keys();
    said.shown = [shown("MLP gate, same block"), shown("query")];
    said.pressed = document.querySelector("#writer-key button").getAttribute("aria-pressed");
    document.body.dataset.said = JSON.stringify(said);
  }, 3000);
}, 50);
</script>
"""


@needs_chromium
def test_controls_of_the_stream_do_what_they_say(stream: ScanResult, tmp_path: Path) -> None:
    said = driven(render_page(stream), _DRIVE_STREAM, tmp_path)
    drawn = {
        measure: [
            edge.space
            for edge, far in zip(stream.edges, beyond_chance(stream, measure), strict=True)
            if far
        ]
        for measure in MEASURES
    }
    keys = {
        measure: [f"to {word} ({spaces.count(space)})" for space, word in READ_WORDS.items()]
        for measure, spaces in drawn.items()
    }
    count = len(drawn["composition"])
    assert said == {
        **keys,
        "remark": f"{count} links drawn, all beyond chance by composition, of the 200 kept of 640 "
        "tested, those furthest from chance.",
        "found": 1,
        "filters": 1,
        "shown": [False, True],
        "pressed": "false",
    }


@needs_chromium
def test_a_browser_without_inflation_gets_a_message(tmp_path: Path) -> None:
    page = render_page(synthetic.perceptron())
    page = page.replace("<script", "<script>delete window.DecompressionStream</script><script", 1)
    document, console = opened(page, tmp_path)
    assert console == ""
    assert "cannot inflate the figures" in document
