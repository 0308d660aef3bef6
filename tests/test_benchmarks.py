import json
from pathlib import Path

import pytest
import torch
from benchmarks.estimates import estimated_scan
from benchmarks.measure import alternated, in_process
from benchmarks.minimal_work import minimal_work, timed
from benchmarks.models import gpt2, llama
from benchmarks.page import renew, spread, tables
from benchmarks.results import Results
from benchmarks.sketch_coverage import Coverage, drawn_pair, measured_coverage, sketched
from safetensors.torch import load_file

import flagscope

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MACHINE = {
    "processor": "a processor", "cores": 2, "torch_cpu": "AVX512", "memory_gib": 8.0,
    "system": "Linux", "torch_blas": "MKL", "other_blas": ["openblas"], "packages": {"torch": "2"},
    "accelerator": None,
}  # fmt: skip


def test_minimal_work_of_one_pair_is_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
    # d = 64 is the larger side, so the small Gram matrices of 8 and of 4 are the cheaper way; each
    # is formed once more, equilibrated, for the signal rank.
    in_outer = [(4, 64, 8), (8, 8, 4), (8, 4, 4), (8, 4, 8)]
    assert minimal_work(flagscope.inspect(net)).amounts == {
        ("product", 8): 2 * (2 * 8 * 64 * 8),
        ("product", 4): 2 * (2 * 4 * 64 * 4) + sum(2 * m * k * n for m, k, n in in_outer),
        ("eigh", 8): 1, ("eigh", 4): 1, ("eigvalsh", 8): 1, ("eigvalsh", 4): 1,
        # Of W2 W1, twice as long as wide, and of the cosine of the dominant directions.
        ("svdvals", 4): 2, ("svdvals", 1): 1,
    }  # fmt: skip


def test_a_map_is_decomposed_once_however_many_pairs_it_is_in(tmp_path):
    folder = gpt2(tmp_path, layers=3, d=32, heads=2)
    work = minimal_work(flagscope.inspect(folder, only="residual", edges=0))
    # Across the stream: q, k, v and up of three blocks, all but the first block's q, k and v read;
    # o and down write, all but the last down.
    readers, writers = 3 * 4 - 3, 3 * 2 - 1
    assert work.amounts["eigh", 32] == readers + writers


def test_no_work_is_counted_beyond_what_the_plan_counts(tmp_path):
    found = flagscope.inspect(gpt2(tmp_path, layers=3, d=128, heads=2))
    assert 0 < minimal_work(found).flops <= sum(task.flops for task in found.tasks)


@pytest.mark.parametrize("workers", [1, 2])
def test_minimal_work_can_be_run(tmp_path, workers):
    found = flagscope.inspect(gpt2(tmp_path, layers=2, d=32, heads=2))
    threads = torch.get_num_threads()
    assert timed(minimal_work(found), workers=workers) > 0
    assert torch.get_num_threads() == threads


def test_shards_of_the_large_shape_hold_every_layer_once(tmp_path):
    folder = llama(tmp_path, layers=5, d=32, ff=48, heads=4, kv_heads=2, vocabulary=16, distinct=2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file in index.items():
        assert load_file(folder / file)[name].dtype == torch.bfloat16
    up = "model.layers.{}.mlp.up_proj.weight"
    first, second, third = (load_file(folder / index[up.format(i)])[up.format(i)] for i in range(3))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    result = flagscope.scan(folder).result
    assert {pair.layer for pair in result.pairs} == set(range(5))
    assert not result.failures


def test_a_worker_has_the_threads_it_is_given_and_its_failure_is_told(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "print('chatter')\n"
        "by = json.loads(sys.argv[1])['by']\n"
        "print(json.dumps({'threads': by * int(os.environ['OMP_NUM_THREADS'])}))"
    )
    found = in_process(str(worker), {"by": 2}, threads=3)
    assert found["threads"] == 6
    assert found["others"] >= 0
    worker.write_text("raise SystemExit('no such thing')")
    with pytest.raises(SystemExit, match="no such thing"):
        in_process(str(worker), {})


def test_results_go_on_where_they_were(tmp_path):
    results = Results(tmp_path / "results.json")
    results.begin("scan", MACHINE, resume=False)
    results.append("scan", {"float64: seconds": 2.0})
    again = Results(tmp_path / "results.json")
    again.begin("scan", MACHINE, resume=True)
    assert again.count("scan", "float64: ") == 1
    again.begin("scan", MACHINE, resume=False)
    assert again.count("scan", "float64: ") == 0


def test_a_run_beside_busy_processes_is_done_again_and_counted(tmp_path):
    results = Results(tmp_path / "results.json")
    results.begin("scan", MACHINE, resume=False)
    runs = iter([{"seconds": 9.0, "others": 0.8}, {"seconds": 1.0, "others": 0.0},
                 {"seconds": 2.0, "others": 0.0}])  # fmt: skip
    alternated(results, "scan", {"float64": lambda: next(runs)}, repeats=2)
    assert results.rows("scan")["float64: seconds"] == [1.0, 2.0]
    assert results.facts("scan")["done again"] == 1


def test_the_page_takes_tables_and_keeps_its_text(tmp_path):
    results = Results(tmp_path / "results.json")
    results.begin("peers", MACHINE, resume=False)
    one = {"cpu": 1.0, "peak_mb": 10.0}
    for name, seconds in (("scan", 2.0), ("analyze, one thread", 8.0)):
        row = one | {"seconds": seconds}
        results.append("peers", {f"{name}: {key}": value for key, value in row.items()})
    assert "minimal work" not in "".join(tables(results.content).values())
    results.append("peers", {"scan: minimal_in_sequence": 1.6, "scan: minimal_at_once": 1.0})
    made = tables(results.content)
    assert "| WeightWatcher analyze() / scan | 4.00 (once) | at least 3 |" in made["ratios"]
    assert "| WeightWatcher analyze() / minimal work | 8.00 (once) | none |" in made["ratios"]
    assert "| minimal work of the scan | 1.00 (once) |  |  | 0.50 (once) |" in made["peers"]
    assert made["growth"] == "Not measured yet."
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    renew(page, results.content)
    once = page.read_text(encoding="utf-8")
    assert "4.00 (once)" in once
    assert "## Accelerators" in once
    renew(page, results.content)
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.slow
def test_estimates_stand_beside_what_was_measured(tmp_path):
    found = estimated_scan(gpt2(tmp_path, layers=1, d=32, heads=2))
    assert min(found["estimated_s"], found["estimated_mb"], found["seconds"]) > 0
    results = Results(tmp_path / "results.json")
    for part, name in (("estimates", "a model"), ("large", "layers 1")):
        results.begin(part, MACHINE, resume=False)
        for estimated_s in (3.0, 5.0, 4.0):
            row = {"estimated_s": estimated_s, "seconds": 4.0, "estimated_mb": 9.0, "peak_mb": 8.0}
            results.append(part, {f"{name}: {key}": value for key, value in row.items()})
    made = tables(results.content)
    said = "4.00 [3.00, 5.00]"
    assert f"| a model | {said} | 4.00 [4.00, 4.00] | 1.00 [0.75, 1.25] |" in made["estimates"]
    assert said in made["large"]


def test_spread_shows_median_and_range():
    assert spread([3.0, 1.0, 2.0]) == "2.00 [1.00, 3.00]"
    assert spread([120.0, 110.0, 134.0]) == "120 [110, 134]"


def test_coverage_leaves_exact_sketches_out():
    found = {}
    for kind, d in (("low rank", 200), ("rank 8", 200), ("flat", 90)):
        pair = drawn_pair(kind, d)
        found[kind] = Coverage(pair)
        for seed in range(10):
            found[kind].add(sketched(pair.write, pair.read, seed))
    assert found["low rank"].sampled == 10
    assert found["low rank"].probes >= 640
    assert min(found["low rank"].hits) >= 7
    # Nothing is left behind 16 directions, and no direction behind 32 and 58 in 90 dimensions.
    for kind in ("rank 8", "flat"):
        assert found[kind].exact == 10
        assert found[kind].worst < 1e-5


def test_coverage_of_trained_pairs_is_of_those_that_a_scan_samples(tmp_path, capsys):
    measured_coverage([], 3, [str(gpt2(tmp_path, layers=1, d=320, heads=2))])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0].startswith("| trained 0, d ")
    assert rows[-1].startswith("pooled: ")
