"""The store: killed scans, several at once, damage, full disks, and what may be shared."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Timer

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from engine.store_process import CONFIG, OPTIONS, Job, llama, processes, text_of
from flagscope.engine import Store
from flagscope.engine.run import attempt
from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.store.local_disk import check_local, file_system
from flagscope.engine.store.store import FILE
from flagscope.errors import StoreError


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums of several threads are rounded in another order; the processes have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(llama(), path)
    return path


@pytest.fixture(scope="module")
def plain(source) -> str:
    """The report of a scan without a store."""
    report = flagscope.scan(source, **OPTIONS)
    assert report.result.edges
    assert report.result.run.tasks_from_store == 0
    return text_of(report)


@pytest.fixture(scope="module")
def total(source) -> int:
    return len(flagscope.inspect(source, config=CONFIG).tasks)


@pytest.fixture(scope="module")
def filled(source, plain, tmp_path_factory) -> Path:
    """A store that holds all results; to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("filled")
    assert text_of(flagscope.scan(source, **OPTIONS, store=folder)) == plain
    return folder


def scan(source, store, **options):
    return flagscope.scan(source, **(OPTIONS | options), store=store)


def stored(folder) -> set[str]:
    """Names of the tasks in a store, read without our code."""
    if not (folder / FILE).exists():
        return set()
    with closing(sqlite3.connect(folder / FILE)) as database:
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()
        return {name for (name,) in database.execute("SELECT task FROM result")}


def lines(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# Killed


def begun_anew(folder, log, before: set[str], seen: int) -> None:
    """No task that was stored before is begun again."""
    assert not before & set(lines(log)[seen:])


def finished(source, folder, log, out, plain, total) -> None:
    before, seen = stored(folder), len(lines(log))
    assert Job(source, folder, log, out).end() == 0
    taken, text = out.read_text().split("\n", 1)
    assert text == plain
    assert int(taken) == len(before)
    assert len(lines(log)) - seen == total - len(before)
    begun_anew(folder, log, before, seen)
    assert len(stored(folder)) == total


def test_killed_before_any_statement_of_sql(source, plain, total, tmp_path):
    folder, log, out = tmp_path / "store", tmp_path / "log", tmp_path / "out"
    # Opening, making the table and its end; looking up; then begin, insert and end of the first
    # transaction, and of the second: one kill after another.
    points = (4, 6, 10, 12, 13, 16, *(total + i for i in (12, 13, 14, 16, 17)))
    for statement in points:
        before, seen = stored(folder), len(lines(log))
        assert Job(source, folder, log, out, at_statement=statement).end() == -signal.SIGKILL
        begun_anew(folder, log, before, seen)
        # With one worker at most one task was done and is not stored.
        assert len(lines(log)) - seen <= len(stored(folder) - before) + 1
    assert len(stored(folder)) == 2
    finished(source, folder, log, out, plain, total)


@pytest.mark.parametrize("task", [1, 5])
def test_killed_in_a_task(task, source, plain, total, tmp_path):
    folder, log, out = tmp_path / "store", tmp_path / "log", tmp_path / "out"
    assert Job(source, folder, log, out, in_task=task).end() == -signal.SIGKILL
    assert len(stored(folder)) == task - 1
    finished(source, folder, log, out, plain, total)


def test_killed_from_outside_at_random_moments_with_two_workers(source, plain, total, tmp_path):
    folder, log, out = tmp_path / "store", tmp_path / "log", tmp_path / "out"
    moments = random.Random(0)
    kills = 0
    while kills < 20:
        before, seen = stored(folder), len(lines(log))
        job = Job(source, folder, log, out, workers=2, pause=0.05)
        time.sleep(moments.uniform(0.05, 0.4))
        job.process.kill()
        ended = job.end()
        begun_anew(folder, log, before, seen)
        assert before <= stored(folder)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
    assert kills
    finished(source, folder, log, out, plain, total)


def test_done_and_killed_before_the_report(source, plain, total, tmp_path, filled):
    folder = shutil.copytree(filled, tmp_path / "store")
    finished(source, folder, tmp_path / "log", tmp_path / "out", plain, total)
    assert lines(tmp_path / "log") == []


# Several at once


def test_two_scans_at_once_of_one_checkpoint(source, plain, total, tmp_path):
    folder, barrier = tmp_path / "store", processes.Barrier(2)
    names = ("a", "b")
    jobs = [
        Job(source, folder, tmp_path / "log", tmp_path / name, barrier=barrier, pause=0.01)
        for name in names
    ]
    assert [job.end() for job in jobs] == [0, 0]
    assert all((tmp_path / name).read_text().split("\n", 1)[1] == plain for name in names)
    with Store(folder) as store:  # checks the database
        assert store.count() == total


def test_two_scans_at_once_with_other_settings(source, plain, total, tmp_path):
    folder, barrier = tmp_path / "store", processes.Barrier(2)
    jobs = [
        Job(source, folder, tmp_path / "log", tmp_path / rank, barrier=barrier, rank=rank)
        for rank in ("signal", "fixed:3")
    ]
    assert [job.end() for job in jobs] == [0, 0]
    assert (tmp_path / "signal").read_text().split("\n", 1)[1] == plain
    again = scan(source, folder, rank="fixed:3")
    assert again.result.run.tasks_from_store == total
    assert text_of(again) == text_of(flagscope.scan(source, **OPTIONS, rank="fixed:3"))
    with Store(folder) as store:
        assert store.count() == 2 * total


def test_a_store_that_is_being_made_elsewhere_is_waited_for(tmp_path):
    with closing(
        sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)
    ) as other:
        # SQLite does not wait by itself to turn on write-ahead mode while another is writing.
        other.execute("BEGIN IMMEDIATE")
        later = Timer(0.3, other.execute, ("ROLLBACK",))
        later.start()
        with Store(tmp_path) as store:
            assert store.count() == 0
        later.join()


# What may be shared


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"rank": "numerical"}, "none"),
        ({"seed": 1}, "none"),
        ({"precision": "float32"}, "none"),
        ({"fold_norms": "none"}, "none"),
        ({"fold_norms": "all"}, "none"),
        ({"config": CONFIG | {"rms_norm_eps": 0.5}}, "norms"),
        ({"config": CONFIG | {"num_attention_heads": 6, "num_key_value_heads": 3}}, "mlp"),
        ({"window": 2}, "blocks"),
        ({"edges": 3}, "blocks"),
        ({"only": ("pairs",)}, "mlp"),
        ({"only": ("residual",)}, "stream"),
        ({"fdr": 0.2}, "all"),
        ({"family": "llama"}, "all"),
        ({"workers": 2}, "all"),
        ({"device": "auto"}, "all"),
    ],
    ids=str,
)
def test_only_what_comes_to_the_same_is_shared(change, shared, source, filled, tmp_path, total):
    if change == {"device": "auto"} and torch.cuda.is_available():
        pytest.skip("auto is not the processor here")
    folder = shutil.copytree(filled, tmp_path / "store")
    log = []
    with watched(log):
        report = scan(source, folder, **change)
    fresh = flagscope.scan(source, **(OPTIONS | change))
    if change != {"workers": 2}:
        assert text_of(report) == text_of(fresh)
    tasks = fresh.result.run.tasks
    assert len(log) == tasks - report.result.run.tasks_from_store
    kinds = {name.rpartition(".")[2] for name in log}
    if shared in ("none", "all"):
        assert len(log) == (tasks if shared == "none" else 0)
    else:
        whole = {"self-attention", "mlp", "stream"}
        begun = {
            "norms": whole - {"mlp"},
            "mlp": whole - {"mlp"} if "config" in change else {"self-attention"},
            "blocks": {"stream"},
            "stream": set(),
        }
        assert kinds == begun[shared]


def test_the_kind_of_device_and_the_versions_count(source, filled, tmp_path, monkeypatch, total):
    folder = shutil.copytree(filled, tmp_path / "store")
    for name in ("version", "torch_version"):
        with monkeypatch.context() as patch:
            patch.setattr(f"flagscope.engine.store.task_keys.{name}", lambda *_: "99")
            assert scan(source, folder).result.run.tasks_from_store == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            "flagscope.engine.store.task_keys.resolved_device", lambda _: torch.device("cuda", 1)
        )
        assert scan(source, folder).result.run.tasks_from_store == 0
        patch.setattr(
            "flagscope.engine.store.task_keys.resolved_device", lambda _: torch.device("cuda")
        )
        assert scan(source, folder).result.run.tasks_from_store == total


def test_a_change_that_the_fingerprint_does_not_see_is_seen(tmp_path):
    def sources():
        yield state
        save_file(state, tmp_path / "model.safetensors")
        yield tmp_path / "model.safetensors"

    state = {f"{i}.weight": torch.randn(64, 64) for i in (0, 2)}
    options = {"device": "cpu", "workers": 1, "store": tmp_path / "store"}
    before = [flagscope.scan(one, **options) for one in sources()]
    assert [flagscope.scan(one, **options).result.run.tasks_from_store for one in (state,)] == [2]
    state["0.weight"][20, 3] += 5.0
    after = [flagscope.scan(one, **options) for one in sources()]
    for old, new in zip(before, after, strict=True):
        assert old.result.fingerprint == new.result.fingerprint
        assert new.result.run.tasks_from_store == 0
        assert old.result.pairs != new.result.pairs
    assert text_of(after[0]) == text_of(flagscope.scan(state, device="cpu", workers=1))


def test_a_checkpoint_that_was_moved_is_known(source, filled, tmp_path, total):
    moved = Path(shutil.copy2(source, tmp_path / source.name))
    assert scan(moved, filled).result.run.tasks_from_store == total


@contextmanager
def watched(log: list[str], fail: str | None = None):
    """Names of the tasks that are carried out; one of them may fail."""
    execute = attempt.execute

    def spy(task, checkpoint, settings):
        log.append(task.name)
        if task.name == fail:
            raise MemoryError("9 TB")
        return execute(task, checkpoint, settings)

    attempt.execute = spy
    try:
        yield
    finally:
        attempt.execute = execute


def test_what_failed_is_tried_again_alone(source, plain, total, tmp_path):
    log = []
    with watched(log, fail="decoder.1.mlp"):
        assert len(scan(source, tmp_path).result.failures) == 1
    log.clear()
    steps = []
    with watched(log):
        report = scan(source, tmp_path, progress=lambda *step: steps.append(step))
    assert log == ["decoder.1.mlp"]
    assert text_of(report) == plain
    assert [step[:2] for step in steps] == [(i, total) for i in range(1, total + 1)]


# Damage


def test_every_damage_is_an_error_or_harmless(source, plain, filled, tmp_path):
    whole = (filled / FILE).read_bytes()
    path = tmp_path / FILE
    found = []
    for place in [*range(0, 100, 7), *range(100, len(whole), len(whole) // 60)]:
        for file in tmp_path.glob(f"{FILE}*"):
            file.unlink()
        spoiled = bytearray(whole)
        spoiled[place] ^= 0xFF
        path.write_bytes(spoiled)
        try:
            text = text_of(scan(source, tmp_path))
        except StoreError as error:
            found.append(error)
        else:
            assert text == plain
    assert len(found) > 30
    assert all(str(tmp_path) in str(error) and "folder" in error.hint for error in found)


def test_a_truncated_database(source, filled, tmp_path):
    whole = (filled / FILE).read_bytes()
    for length in (50, len(whole) // 2, len(whole) - 100):
        (tmp_path / FILE).write_bytes(whole[:length])
        with pytest.raises(StoreError, match="is damaged") as caught:
            scan(source, tmp_path)
        assert "scan again" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE result SET payload = (SELECT payload FROM result ORDER BY task DESC LIMIT 1)",
        "UPDATE result SET payload = substr(payload, 1, 100)",
        "UPDATE result SET task = task || 'x'",
    ],
)
def test_a_row_that_was_changed_has_another_checksum(change, source, filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "store")
    with closing(sqlite3.connect(folder / FILE)) as database, database:
        database.execute(change)
    with pytest.raises(StoreError, match="checksum"):
        scan(source, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("PRAGMA user_version = 2", "layout 2.*layout 1"),
        ("PRAGMA application_id = 5", "something else"),
    ],
)
def test_a_database_of_another_kind_is_left_as_it_is(change, message, filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "store")
    with closing(sqlite3.connect(folder / FILE)) as database, database:
        database.execute(change)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    left_as_it_is(folder, message)


def left_as_it_is(folder, message):
    before = (folder / FILE).read_bytes()
    with pytest.raises(StoreError, match=message) as caught:
        Store(folder)
    assert "another folder" in caught.value.hint
    assert (folder / FILE).read_bytes() == before


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        database.execute("CREATE TABLE result (key, task, payload, digest)")
    left_as_it_is(tmp_path, "something else")


def test_a_row_that_its_index_has_lost_is_damage(filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "store")
    with closing(sqlite3.connect(folder / FILE)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE type = 'index'"
        ).fetchone()
    whole = bytearray((folder / FILE).read_bytes())
    # Bytes 3 and 4 of a page of a b-tree count its cells (sqlite.org/fileformat.html).
    whole[(page - 1) * size + 4] -= 1
    (folder / FILE).write_bytes(whole)
    with pytest.raises(StoreError, match="is damaged"):
        Store(folder)


def test_what_is_no_database(tmp_path):
    (tmp_path / FILE).write_text("a table of results, in plain text" * 50)
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / FILE)
    (tmp_path / "x" / FILE).mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "x")


# Full disks and lost workers


def resumed_after_room_was_made(source, folder, plain, room) -> None:
    with pytest.raises(StoreError, match="full") as caught:
        scan(source, folder)
    assert "make room" in caught.value.hint
    kept = stored(folder)
    assert kept
    room()
    report = scan(source, folder)
    assert report.result.run.tasks_from_store == len(kept)
    assert text_of(report) == plain


def test_a_database_that_may_not_grow(source, plain, tmp_path, monkeypatch):
    connect = sqlite3.connect

    def limited(*args, **options):
        database = connect(*args, **options)
        database.execute("PRAGMA max_page_count = 12")
        return database

    monkeypatch.setattr("flagscope.engine.store.store.sqlite3.connect", limited)
    resumed_after_room_was_made(source, tmp_path, plain, monkeypatch.undo)


def test_a_full_disk(source, plain, tmp_path):
    size = "-o", "size=160k"
    if subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        resumed_after_room_was_made(
            source, tmp_path / "store", plain,
            lambda: subprocess.run(["mount", "-o", "remount,size=4m", tmp_path], check=True),
        )  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def die_in_the_second_block() -> None:
    """In a worker: the task kills its process."""
    execute = attempt.execute

    def deadly(task, checkpoint, settings):
        if task.name == "decoder.1.mlp":
            time.sleep(0.5)  # the driver stores what came before
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(task, checkpoint, settings)

    torch.set_num_threads(1)
    attempt.execute = deadly


def test_a_lost_worker_loses_its_task_alone(source, plain, total, tmp_path):
    with ProcessPoolExecutor(1, processes, die_in_the_second_block) as pool:
        result = scan(source, tmp_path, executor=pool).result
    kept = stored(tmp_path)
    assert "decoder.0.mlp" in kept
    assert len(result.failures) == total - len(kept)
    assert "a worker died" in result.failures[0].hint
    report = scan(source, tmp_path)
    assert report.result.run.tasks_from_store == len(kept)
    assert text_of(report) == plain


# Network file systems

_MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/export /home/ann nfs4 rw,vers=4.2 0 0
//host/share /mnt/with\\040space cifs rw 0 0
user@host:/ /mnt/remote fuse.sshfs rw 0 0
/dev/sdb1 /home/ann/local xfs rw 0 0
first /mnt/twice ext4 rw 0 0
second /mnt/twice lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/store", "ext4"),
        ("/home/annette", "ext4"),
        ("/home/ann/store", "nfs4"),
        ("/home/ann/local/store", "xfs"),
        ("/mnt/with space", "cifs"),
        ("/mnt/remote/a/b", "fuse.sshfs"),
        ("/mnt/twice/a", "lustre"),
    ],
)
def test_a_network_file_system_is_refused(path, kind, tmp_path):
    table = tmp_path / "mounts"
    table.write_text(_MOUNTS)
    assert file_system(path, table) == kind
    if kind in ("ext4", "xfs"):
        check_local(path, table)
        return
    with pytest.raises(StoreError, match=kind) as caught:
        check_local(path, table)
    assert "local disk" in caught.value.hint


def test_a_store_on_a_network_is_not_begun(tmp_path, monkeypatch):
    kind = file_system(tmp_path)
    if kind is None:
        pytest.skip("this system does not tell what is mounted")
    monkeypatch.setattr("flagscope.engine.store.local_disk._NETWORK", frozenset({kind}))
    with pytest.raises(StoreError, match="network"):
        flagscope.scan({}, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_first_of_two_equal_results_stays(tmp_path):
    with Store(tmp_path) as one, Store(tmp_path) as other:
        one.append([(b"key", "task", TaskResult([], [], [], 1))])
        other.append([(b"key", "task", TaskResult([], [], [], 2))])
        assert one.get(b"key") == other.get(b"key") == TaskResult([], [], [], 1)
        assert one.count() == 1
