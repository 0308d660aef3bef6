"""Series in stores that list: folders and patterns behind a URL, as those on disk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import flagscope
from flagscope.errors import InputError, MissingFileError, SourceError
from flagscope.series.file_states import url_states
from flagscope.series.places import places, runs_of
from remote.conftest import Put, in_folder, model, sharded, single
from remote.stores import Log, Web
from series.made import adapters

_NUMBERS = (0, 100, 200, 1000)


def _moved(number: int, seed: int = 0) -> dict[str, Tensor]:
    """A GPT-2 that moves in one direction with the number."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: tensor + number / 1000 * torch.randn(tensor.shape, generator=draws)
        for name, tensor in model().items()
    }


def _run(folder: str = "a", seed: int = 0, **state: int) -> dict[str, bytes]:
    """A run of two shards a step, with a trainer's state and what else lies in such folders."""
    files = {f"{folder}/README.md": b"a run", f"{folder}/logs/events": b"x"}
    for number in _NUMBERS:
        inner = sharded(_moved(number, seed), 2)
        inner["trainer_state.json"] = json.dumps({"global_step": number, **state}).encode()
        files |= {f"{folder}/checkpoint-{number}/{name}": data for name, data in inner.items()}
    return files


@pytest.fixture
def memory() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """A function that puts files into fsspec's memory and gives the URL of their folder."""
    store = fsspec.filesystem("memory")

    def put(files: dict[str, bytes]) -> str:
        for name, content in files.items():
            store.pipe_file(f"/listing/{name}", content)
        return "memory://listing"

    yield put
    if store.exists("/listing"):
        store.rm("/listing", recursive=True)


def _names(*sources: str) -> list[str]:
    return [place.name for place in places(sources)]


@pytest.mark.parametrize(
    "what", ["a", "a/", "a/checkpoint-*", "*", "?/checkpoint-[0-9]*", "a/check*/"]
)
def test_a_series_on_s3_is_the_one_on_disk(
    what: str, bucket: tuple[Put, Log], tmp_path: Path
) -> None:
    files = _run()
    put, log = bucket
    url = put(files)
    for name, content in files.items():
        in_folder({Path(name).name: content}, tmp_path / Path(name).parent)
    far = flagscope.track(url + what, verify=True)
    requests, read = log.count(), sum(size for _, _, size in log.requests)
    near = flagscope.track(tmp_path / "a", verify=True)
    assert far.steps["name"].tolist() == [f"checkpoint-{number}" for number in _NUMBERS]
    assert far.result.integrity.faults == near.result.integrity.faults
    assert far.steps["trainer_step"].tolist() == list(_NUMBERS)
    same = ["number", "distance", "distance_first", "bytes_sampled", "bytes_total"]
    assert far.steps[same].equals(near.steps[same])
    # A step costs what it costs by its own URL; a listing of its folder comes to it for a pattern.
    log.clear()
    flagscope.track([f"{url}a/checkpoint-{number}" for number in _NUMBERS], verify=True)
    lists = 1 + what.count("*") + what.count("?") + len(_NUMBERS)
    assert requests <= log.count() + lists
    assert read <= sum(size for _, _, size in log.requests) + lists * 2500
    if what == "a":
        assert requests < log.count()
        assert requests < 1 + 12 * len(_NUMBERS)


def test_files_are_steps(memory: Callable[[dict[str, bytes]], str]) -> None:
    url = memory({f"run/step_{n}.safetensors": save(_moved(n)) for n in (5, 10, 20)})
    expected = ["step_5.safetensors", "step_10.safetensors", "step_20.safetensors"]
    assert _names(f"{url}/run") == _names(f"{url}/run/step_*") == expected
    memory({"run/best.safetensors": save(_moved(20))})
    report = flagscope.track(f"{url}/run", verify=True)
    assert [step.name for step in report.result.steps] == expected
    assert report.result.notes == ["best.safetensors in run itself belongs to no step."]


def test_a_folder_that_is_a_checkpoint_is_one_step(
    memory: Callable[[dict[str, bytes]], str],
) -> None:
    for name, files in {"whole": single(model()), "shards": sharded(model())}.items():
        url = memory({f"{name}/{file}": content for file, content in files.items()})
        assert _names(f"{url}/{name}") == [name]
        assert _names(f"{url}/{name}/") == [name]


def test_several_runs(memory: Callable[[dict[str, bytes]], str]) -> None:
    url = memory(_run("runs/one") | _run("runs/two", seed=1))
    found = runs_of(places([f"{url}/runs/*"]))
    assert {name: [place.number for place in run] for name, run in found.items()} == {
        "one": list(_NUMBERS), "two": list(_NUMBERS)
    }  # fmt: skip
    report = flagscope.track(f"{url}/runs/*/checkpoint-*", verify=True)
    assert report.runs["name"].tolist() == ["one", "two"]


def test_a_trainer_state_is_that_of_the_step_and_not_of_the_run(
    memory: Callable[[dict[str, bytes]], str],
) -> None:
    files = _run()
    files["a/trainer_state.json"] = json.dumps({"global_step": 7}).encode()
    files["a/checkpoint-200/trainer_state.json"] = json.dumps({"global_step": 300}).encode()
    report = flagscope.track(memory(files) + "/a", verify=True)
    assert report.steps["trainer_step"].tolist() == [0, 100, 300, 1000]
    wrong = [fault.steps for fault in report.faults if fault.code == "wrong-number"]
    assert wrong == [["checkpoint-200"]]


class TestFailure:
    """An error that says what to do, at once."""

    def test_no_such_bucket(self, bucket: tuple[Put, Log]) -> None:
        for url in ("s3://no-such-bucket-here/runs", "s3://no-such-bucket-here/runs/step-*"):
            with pytest.raises(MissingFileError, match="there is no s3://no-such") as error:
                places([url])
            assert error.value.hint

    @pytest.mark.parametrize("url", ["s3://b*/runs/step-1", "s3://*", "memory://?/a"])
    def test_a_pattern_of_buckets(self, url: str) -> None:
        with pytest.raises(InputError, match="bucket"):
            places([url])

    def test_nothing_under_the_prefix(self, bucket: tuple[Put, Log]) -> None:
        put, _ = bucket
        url = put(_run())
        with pytest.raises(MissingFileError, match="there is no") as error:
            places([url + "none"])
        assert error.value.hint
        with pytest.raises(MissingFileError, match=r"no checkpoint matches .*step-\*"):
            places([url + "a/step-*"])
        with pytest.raises(MissingFileError, match="no checkpoint matches"):
            places([url + "a/README.md/*", url])
        with pytest.raises(MissingFileError, match="no checkpoints whose names") as error:
            places([url])
        assert "it holds a" in str(error.value.hint)

    def test_a_step_that_is_not_there_is_a_fault_of_the_series(
        self, bucket: tuple[Put, Log]
    ) -> None:
        put, _ = bucket
        url = put(_run())
        named = [f"{url}a/checkpoint-{number}" for number in (0, 50, 100)]
        report = flagscope.track(named, verify=True)
        assert [(fault.code, fault.steps) for fault in report.faults] == [
            ("incomplete", ["checkpoint-50"])
        ]

    def test_no_permission(
        self, memory: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = memory(_run())

        def refused(*_: object, **__: object) -> None:
            raise PermissionError("Access Denied")

        monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", refused)
        for what in (f"{url}/a", f"{url}/a/checkpoint-*", url):
            with pytest.raises(SourceError, match="does not let") as error:
                places([what])
            assert "credentials" in str(error.value.hint)

    def test_a_store_that_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("s3fs")
        import socket

        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("FLAGSCOPE_TIMEOUT", "0.3")
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
            before = time.monotonic()
            with pytest.raises(SourceError, match="sends nothing") as error:
                places(["s3://silent-bucket/runs"])
            assert "FLAGSCOPE_TIMEOUT" in str(error.value.hint)
            assert time.monotonic() - before < 20

    def test_many_keys_that_are_no_checkpoints(self, bucket: tuple[Put, Log]) -> None:
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        put, log = bucket
        url = put({"readme": b""})
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for number in range(2100):
            backend.put_object(url.split("/")[2], f"models/many/part{number:05}.log", b"")
        with pytest.raises(MissingFileError, match="no checkpoints whose names") as error:
            places([url + "many"])
        assert len(str(error.value.hint)) < 200
        assert log.count() == 3  # 1,000 keys an answer
        put({"many/checkpoint-5/model.safetensors": save(model())})
        assert _names(url + "many") == ["checkpoint-5"]
        assert log.count() == 3

    def test_a_missing_driver(self) -> None:
        pytest.importorskip("fsspec")
        with pytest.raises(SourceError, match="no protocol"):
            places(["gopher://host/runs"])


@pytest.mark.parametrize(
    "run", ["sp ace", "#h", "a%20b", "ü–名", "a+b&c=d", "it's", "[1]", "a*b", "what?", "a//b", "-a"]
)
def test_odd_characters_in_keys(run: str, bucket: tuple[Put, Log]) -> None:
    put, _ = bucket
    url = put({f"{run}/step {n}#x?/model.safetensors": save(_moved(n)) for n in (5, 10)})
    expected = ["step 5#x?", "step 10#x?"]
    report = flagscope.track(f"{url}{run}", verify=True)
    assert [(step.name, step.status) for step in report.result.steps] == [
        (name, "ok") for name in expected
    ]
    assert _names(f"{url}{run}/step*x?") == expected


class TestWeb:
    """A web server does not list: each step is named."""

    @pytest.mark.parametrize("path", ["run/step-*", "run/step-[0-9]", "*"])
    def test_a_pattern_is_refused(self, path: str, web: Web) -> None:
        with pytest.raises(InputError, match="does not list") as error:
            places([f"{web.url}/{path}"])
        assert "name the URL of each step" in str(error.value.hint)
        assert web.log.count() == 0

    def test_a_folder_of_steps_is_refused(self, web: Web) -> None:
        web.files = {f"/run/step-{n}/model.safetensors": save(_moved(n)) for n in (5, 10)}
        with pytest.raises(MissingFileError, match="does not list") as error:
            flagscope.track(f"{web.url}/run/", verify=True)
        assert "name the URL of each step" in str(error.value.hint)

    def test_named_steps_are_read(self, web: Web) -> None:
        web.files = {f"/run/step-{n}/model.safetensors": save(_moved(n)) for n in (5, 10)}
        web.files["/final/model.safetensors"] = save(_moved(10))
        named = [f"{web.url}/run/step-10/", f"{web.url}/run/step-5", f"{web.url}/final"]
        report = flagscope.track(named, verify=True)
        assert report.steps["name"].tolist() == ["step-5", "step-10", "final"]
        assert set(report.steps["status"]) == {"ok"}

    def test_a_signature_is_not_a_part_of_a_name(self, web: Web) -> None:
        web.files = {f"/run/step-{n}.safetensors": save(_moved(n)) for n in (5, 10)}
        signed = [f"{web.url}/run/step-{n}.safetensors?sig=S3CR/ET{n}*" for n in (5, 10)]
        report = flagscope.track(signed, verify=True)
        assert report.steps["number"].tolist() == [5, 10]
        assert report.steps["name"].tolist() == ["step-5.safetensors", "step-10.safetensors"]
        assert "S3CR" not in report.to_json()


class TestStore:
    """What is kept of a step behind a URL is taken while its files have the same tags."""

    def test_only_new_and_changed_steps_are_read_again(
        self, bucket: tuple[Put, Log], tmp_path: Path
    ) -> None:
        put, log = bucket

        def step(number: int, size: float = 1.0) -> dict[str, bytes]:
            moved = {name: tensor * size for name, tensor in _moved(number).items()}
            return {f"a/checkpoint-{number}/{n}": data for n, data in single(moved).items()}

        def read() -> set[str]:
            asked = {path for _, path, _ in log.requests if path.endswith("model.safetensors")}
            log.clear()
            return {path.split("/")[-2] for path in asked}

        url = put({name: data for n in (0, 100, 200) for name, data in step(n).items()})
        first = flagscope.track(f"{url}a", kinds="mlp", store=tmp_path)
        assert read() == {"checkpoint-0", "checkpoint-100", "checkpoint-200"}
        again = flagscope.track(f"{url}a", kinds="mlp", store=tmp_path)
        # One listing of the run for its steps, one for what is in none, and one of each step.
        assert log.count() == 2 + 3
        assert read() == set()
        assert again.to_json() == first.to_json()
        put(step(300))
        put(step(100))  # uploaded again, with the same content: the same ETag
        flagscope.track(f"{url}a", kinds="mlp", store=tmp_path)
        assert read() == {"checkpoint-300"}
        put(step(100, size=1.01))
        changed = flagscope.track(f"{url}a", kinds="mlp", store=tmp_path)
        assert read() == {"checkpoint-100"}
        assert changed.to_json() == flagscope.track(f"{url}a", kinds="mlp").to_json()

    def test_a_step_that_changes_after_the_look_at_integrity_is_not_kept(
        self, memory: Callable[[dict[str, bytes]], str], tmp_path: Path
    ) -> None:
        from flagscope.series.kept import KeptSteps

        url = memory({f"a/step-{n}/model.safetensors": save(_moved(n)) for n in (5, 10)})
        place = places([f"{url}/a"])[0]
        kept = KeptSteps(tmp_path)
        kept.step(place)
        kept.keep(place, {"what": "x"}, "before")
        time.sleep(0.01)
        memory({"a/step-5/model.safetensors": save(_moved(7))})
        kept.keep(place, {"what": "y"}, "after")
        assert kept.result(place, {"what": "x"}) == "before"
        assert kept.result(place, {"what": "y"}) is None
        # The text may be of either state, and is kept for none.
        for what in "xy":
            assert KeptSteps(tmp_path).result(place, {"what": what}) is None

    def test_a_store_without_tags_is_read_again(
        self, memory: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = memory({f"a/step-{n}/model.safetensors": save(_moved(n)) for n in (5, 10)})
        place = places([f"{url}/a"])[0]
        assert url_states(place) is not None
        store = type(fsspec.filesystem("memory"))
        listed = store.ls

        def without(*given: Any, **options: Any) -> list[dict[str, Any]]:
            return [{**entry, "created": None} for entry in listed(*given, **options)]

        monkeypatch.setattr(store, "ls", without)
        assert url_states(place) is None

    @pytest.mark.parametrize("tags", [True, False])
    def test_files_on_the_web(self, tags: bool, web: Web, tmp_path: Path) -> None:
        web.tags = tags
        web.files["/step-5.safetensors"] = save(_moved(5))
        url = f"{web.url}/step-5.safetensors"
        one = flagscope.track(url, verify=True, store=tmp_path)
        web.log.clear()
        two = flagscope.track(url, verify=True, store=tmp_path)
        # Without a tag the same size says nothing.
        assert (web.log.count("GET", "step-5.safetensors") == 0) is tags
        assert one.to_json() == two.to_json()


def test_a_step_that_is_added_while_waiting_is_read(
    memory: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagscope.series.waiting._PAUSE", 0.05)
    parts = sharded(_moved(200), 2)
    late = {name: parts.pop(name) for name in list(parts) if "00002-of" in name}
    url = memory({f"a/step-{n}/model.safetensors": save(_moved(n)) for n in (0, 100)})
    memory({f"a/step-200/{name}": data for name, data in parts.items()})
    memory({"a/README.md": b""})

    def upload() -> None:
        memory({f"a/step-200/{name}": data for name, data in late.items()})
        memory({"a/step-300/model.safetensors": save(_moved(300))})

    timer = threading.Timer(0.5, upload)
    timer.start()
    report = flagscope.track(f"{url}/a", verify=True, wait=4)
    timer.join()
    assert report.steps["number"].tolist() == [0, 100, 200, 300]
    assert set(report.steps["status"]) == {"ok"}


def test_adapters_behind_urls_are_measured_from_their_factors(
    memory: Callable[[dict[str, bytes]], str], tmp_path: Path
) -> None:
    settings = json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16}).encode()
    files: dict[str, bytes] = {}
    for number, state in adapters(0, steps=3):
        weights = save({name: tensor.contiguous() for name, tensor in state.items()})
        files |= {f"a/checkpoint-{number}/adapter_model.safetensors": weights,
                  f"a/checkpoint-{number}/adapter_config.json": settings}  # fmt: skip
    for name, content in files.items():
        in_folder({Path(name).name: content}, tmp_path / Path(name).parent)
    far, near = flagscope.track(memory(files) + "/a"), flagscope.track(tmp_path / "a")
    assert len(far.adapters) > 0
    assert far.adapters.equals(near.adapters)
    assert far.result.notes == near.result.notes == []
