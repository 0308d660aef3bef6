"""Tables of the results, for the terminal and for docs/performance.md.

The page keeps its text; what stands between `<!-- benchmarks: NAME -->` and `<!-- end of NAME -->`
is written from the results alone. Every figure is the median of its runs with the range of all of
them; a ratio is taken run by run, of neighbours in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import QUIET

Rows = Mapping[str, Sequence[float]]
_MISSING = "Not measured yet."
_POINT = {
    "seconds": "time, s", "peak_mb": "memory, MB", "estimated_s": "estimated, s",
    "estimated_mb": "estimated, MB",
}  # fmt: skip
_KINDS = {
    "product": "matrix product", "eigh": "eigenvalues and vectors", "eigvalsh": "eigenvalues",
    "svdvals": "singular values", "qr": "QR",
}  # fmt: skip


def summary(content: Mapping[str, Any]) -> str:
    """All tables that there are results for."""
    found = {name: table for name, table in tables(content).items() if table != _MISSING}
    return "\n\n".join(f"# {name}\n\n{table}" for name, table in found.items())


def renew(page: Path, content: Mapping[str, Any]) -> None:
    """Write the tables into the page.

    Raises
    ------
    SystemExit
        If the page lacks a pair of markers.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in tables(content).items():
        begin, end = f"<!-- benchmarks: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{page} has no {begin} … {end}")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8", newline="\n")


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by the name of its marker."""
    parts = content["parts"]
    made = dict.fromkeys(_TABLES, _MISSING)
    for name, (needed, table) in _TABLES.items():
        if needed in parts and parts[needed]["rows"]:
            made[name] = table(parts[needed]) + _elsewhere(parts, parts[needed])
    made["machine"] = _machine(_main(parts)["machine"]) if parts else _MISSING
    made["ratios"] = _ratios(parts)
    return made


def _main(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    return parts.get("scan") or next(iter(parts.values()))


def _elsewhere(parts: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Said below a table: when, on what other machine, and how far from alone."""
    loads = [max(values) for name, values in part["rows"].items() if name.endswith("others")]
    if loads and max(loads) > QUIET:
        shared = f" Other processes used up to {max(loads):.1f} cores meanwhile."
    else:
        shared = ""
    if again := part["facts"].get("done again"):
        shared = f" Runs done again because other processes were busy: {again}.{shared}"
    same = ("processor", "cores", "torch_blas", "packages")
    main = _main(parts)
    if all(part["machine"][key] == main["machine"][key] for key in same):
        return f"\n\n*{part['date']}.{shared}*"
    one = part["machine"]
    packages = ", ".join(f"{name} {v}" for name, v in one["packages"].items())
    return f"\n\n*{part['date']}, on another machine: {one['processor']}, {packages}.{shared}*"


def _machine(one: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {v}" for name, v in one["packages"].items() if v)
    return _table(
        ("part", "what"),
        [
            ("processor", f"{one['processor']}, {one['cores']} cores, {one['torch_cpu']}"),
            ("memory", f"{one['memory_gib']} GiB"),
            ("system", one["system"]),
            ("BLAS of PyTorch", one["torch_blas"]),
            ("BLAS of NumPy and SciPy", ", ".join(one["other_blas"])),
            ("packages", packages),
            ("accelerator", one["accelerator"] or "none"),
        ],
        numbers=False,
    )


def _ratios(parts: Mapping[str, Any]) -> str:
    """What is promised beside what is measured."""
    found: list[tuple[str, str, str]] = []

    def add(what: str, goal: str, part: str, over: str, under: str) -> None:
        rows = parts.get(part, {}).get("rows", {})
        if over in rows and under in rows:
            found.append((what, spread(_over(rows[over], rows[under])), goal))

    def reading(what: str, goal: str, part: str, name: str) -> None:
        rows = parts.get(part, {}).get("rows", {})
        if name in rows:
            found.append((what, spread(rows[name]), goal))

    rows = parts.get("scan", {}).get("rows", {})
    if "mixed: seconds" in rows:
        share = _over(rows["mixed: seconds"], _least(rows, "mixed"))
        found.append(("scan / its own minimal work", spread(share), "at most 2"))
    reading("memory of a scan beyond the imports, MB", "at most 1000", "scan", "mixed: peak_mb")
    for what, shown, goal, part, kind in (
        ("analyze", "analyze()", "at least 3", "peers", "seconds"),
        ("intra", "intra=True, extrapolated", "at least 100", "intra", "seconds_of_all"),
    ):
        peers = parts.get(part, {}).get("rows", {})
        if any(name.startswith(what) for name in peers):
            fair = _fair(peers, what, kind)
            add(f"WeightWatcher {shown} / scan", goal, part, fair, "scan: seconds")
            if "scan: minimal_in_sequence" in peers:
                least = _over(peers[fair], _least(peers, "scan"))
                found.append((f"WeightWatcher {shown} / minimal work", spread(least), "none"))
    ours = "all pairs of heads, flagscope: seconds"
    add("loop of subspace_angles over all pairs of heads / all-pairs overlaps", "at least 50",
        "angles", "all pairs of heads, loop: seconds", ours)  # fmt: skip
    reading("memory of all pairs of heads, MB", "at most 500", "angles",
            "all pairs of heads, flagscope: peak_mb")  # fmt: skip
    add("loop of subspace_angles over the scan's pairs / scan", "none", "angles",
        "subspace_angles of the scan's pairs: seconds", "scan: seconds")  # fmt: skip
    large = parts.get("large", {}).get("rows", {})
    for name in large:
        if name.endswith(": peak_mb"):
            reading(f"memory of {name.split(':')[0]} of the 7B shape, MB", "at most 3000",
                    "large", name)  # fmt: skip
    return _table(("what", "measured", "goal"), found) if found else _MISSING


def _fair(rows: Rows, what: str, kind: str) -> str:
    """The row of the setting of threads in which WeightWatcher is faster."""
    names = (f"{what}, {threads}: {kind}" for threads in ("one thread", "default threads"))
    return min((name for name in names if name in rows), key=lambda name: median(rows[name]))


def _least(rows: Rows, precision: str) -> list[float]:
    """Minimal work by the faster way of using the cores."""
    ways = [
        rows[f"{precision}: {way}"]
        for way in ("minimal_in_sequence", "minimal_at_once")
        if f"{precision}: {way}" in rows
    ]
    return list(min(ways, key=median))


def _scan(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    lines = []
    for precision in ("mixed", "float64"):
        if f"{precision}: seconds" not in rows:
            continue
        seconds, least = rows[f"{precision}: seconds"], _least(rows, precision)
        sequence = rows[f"{precision}: minimal_in_sequence"]
        at_once = rows.get(f"{precision}: minimal_at_once", sequence)
        lines.append((
            precision, spread(seconds), spread(at_once), spread(sequence),
            spread(_over(seconds, least)), spread(rows[f"{precision}: peak_mb"]),
        ))  # fmt: skip
    head = (
        "arithmetic", "scan, s", "minimal work, one call a core, s",
        "minimal work, all cores a call, s", "scan / the faster", "memory, MB",
    )  # fmt: skip
    return _table(head, lines)


def _work(part: Mapping[str, Any]) -> str:
    calls = part["facts"]["minimal work, mixed"]
    shown = [one for one in calls if one["gflop"] >= 1]
    lines = [
        (_KINDS[one["kind"]], str(one["size"]), f"{one['times']:,.0f}", f"{one['gflop']:.1f}")
        for one in shown
    ]
    total, rest = sum(one["gflop"] for one in calls), len(calls) - len(shown)
    small = sum(one["gflop"] for one in calls) - sum(one["gflop"] for one in shown)
    lines.append((f"{rest} smaller kinds", "", "", f"{small:.1f}"))
    lines.append(("**in all**", "", "", f"**{total:.0f}**"))
    return _table(("call", "size", "times", "GFLOP"), lines)


def _peers(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    scan = rows["scan: seconds"]
    lines = []
    for name in _runs(rows):
        times = rows[f"{name}: seconds"]
        lines.append((name, spread(times), spread(rows[f"{name}: cpu"]),
                      spread(rows[f"{name}: peak_mb"]), spread(_over(times, scan))))  # fmt: skip
    if "scan: minimal_in_sequence" in rows:
        least = _least(rows, "scan")
        lines.insert(1, ("minimal work of the scan", spread(least), "", "",
                         spread(_over(least, scan))))  # fmt: skip
    return _table(("run", "time, s", "processor time, s", "memory, MB", "time / scan"), lines)


def _intra(part: Mapping[str, Any]) -> str:
    rows, facts = part["rows"], part["facts"]
    measured, everything = facts["pairs measured"], facts["pairs in all"]
    scan = rows["scan: seconds"]
    lines = [("scan", "", spread(scan), "1")]
    for name in _runs(rows)[1:]:
        whole = rows[f"{name}: seconds_of_all"]
        lines.append((name, spread(rows[f"{name}: seconds"]), spread(whole),
                      spread(_over(whole, scan))))  # fmt: skip
    head = ("run", f"{measured} pairs, s", f"all {everything}, extrapolated, s", "all / scan")
    return _table(head, lines)


def _angles(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    groups = (
        ("scan: seconds", ("scan", "subspace_angles of the scan's pairs", "svd of every matrix",
                           "svd of every matrix, all threads")),
        ("all pairs of heads, flagscope: seconds",
         ("all pairs of heads, loop", "all pairs of heads, flagscope, one thread",
          "all pairs of heads, flagscope")),
    )  # fmt: skip
    lines = []
    for unit, names in groups:
        for name in names:
            times, memory = rows[f"{name}: seconds"], rows.get(f"{name}: peak_mb")
            lines.append((name, spread(times), spread(memory) if memory else "",
                          spread(_over(times, rows[unit]))))  # fmt: skip
    return _table(("what", "time, s", "memory, MB", "time / ours"), lines)


def _rooflines(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    found: dict[str, dict[str, str]] = {}
    for name, values in rows.items():
        what, _, unit = name.rpartition(", ")
        for dtype in ("float32", "float64"):
            if what.endswith(dtype):
                row = f"{what.removesuffix(dtype).strip()}, {unit}"
                found.setdefault(row, {})[dtype] = spread(values)
    lines = [(name, one["float32"], one["float64"]) for name, one in found.items()]
    text = _table(("call, all threads", "float32", "float64"), lines)
    disk = [(name.rpartition(", ")[0], spread(values)) for name, values in rows.items()
            if name.startswith("disk")]  # fmt: skip
    return f"{text}\n\n{_table(('reading', 'MB/s'), disk)}"


def _estimates(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    lines = [
        (name, spread(rows[f"{name}: estimated_s"]), spread(rows[f"{name}: seconds"]),
         spread(_over(rows[f"{name}: estimated_s"], rows[f"{name}: seconds"])),
         spread(rows[f"{name}: estimated_mb"]), spread(rows[f"{name}: peak_mb"]))
        for name in _runs(rows)
    ]  # fmt: skip
    head = ("model", "estimated, s", "measured, s", "estimated / measured", "estimated, MB",
            "measured, MB")  # fmt: skip
    return _table(head, lines)


def _points(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    lines = []
    names = _runs(rows)
    kinds = [kind for kind in _POINT if any(f"{name}: {kind}" in rows for name in names)]
    labels = [name.rpartition(" ")[0] for name in names]
    # Of each kind by size, in whatever order they were measured.
    for name in sorted(
        names, key=lambda one: (labels.index(one.rpartition(" ")[0]), int(one.rpartition(" ")[2]))
    ):
        size = part["facts"].get(f"{name}, GB")
        shown = f"{name}, {size:.1f} GB" if size else name
        lines.append((shown, *(_measured(rows, f"{name}: {kind}") for kind in kinds)))
    return _table(("size", *(_POINT[kind] for kind in kinds)), lines)


def _measured(rows: Rows, name: str) -> str:
    return spread(rows[name]) if name in rows else ""


def _pictured(part: Mapping[str, Any], name: str) -> str:
    """The plot that `plots.draw` makes, and the table of what it shows."""
    if len(_runs(part["rows"])) < 2:
        return _points(part)
    alternative = "Time and memory of a scan as the model grows."
    return f"![{alternative}](performance/{name}.png)\n\n{_points(part)}"


_TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "machine": ("", _points),
    "ratios": ("", _points),
    "scan": ("scan", _scan),
    "work": ("scan", _work),
    "peers": ("peers", _peers),
    "intra": ("intra", _intra),
    "angles": ("angles", _angles),
    "rooflines": ("rooflines", _rooflines),
    "estimates": ("estimates", _estimates),
    "growth": ("growth", lambda part: _pictured(part, "growth")),
    "large": ("large", lambda part: _pictured(part, "large")),
}


def spread(values: Sequence[float]) -> str:
    """Median and range.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.04])
    '2.04 [1.00, 3.00]'
    """
    middle = median(values)
    digits = max(0, 2 - len(str(int(abs(middle)))) + 1) if middle else 0
    if len(values) == 1:
        return f"{middle:.{digits}f} (once)"
    return f"{middle:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _over(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Ratios run by run."""
    return [a / b for a, b in zip(above, below, strict=False)]


def _runs(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name.partition(": ")[0] for name in rows))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    ruled = "|".join("---:" if i and numbers else "---" for i in range(len(head)))
    body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{ruled}|", *body])
