"""Models on the Hugging Face hub: fetch the files needed, or find them in the local cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flagscope.checkpoint.configuration import CONFIG_NAME
from flagscope.checkpoint.folder import INDEX_SUFFIX, STANDARD_NAMES
from flagscope.checkpoint.formats import SAFETENSORS_SUFFIXES, SUFFIXES
from flagscope.checkpoint.remote.hub import HubPath
from flagscope.checkpoint.remote.retries import seconds
from flagscope.checkpoint.sharded import weight_map
from flagscope.errors import MissingFileError, SourceError
from flagscope.shortening import listed

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LISTED = 4
# What models of other frameworks are called, where there is none for PyTorch.
_OTHER_NAMES = ("flax_model.msgpack", "tf_model.h5")


def is_hub_name(named: str) -> bool:
    """Whether a text can be the name of a model on the hub: name, or org/name, and no file's.

    Examples
    --------
    >>> [is_hub_name(text) for text in ("gpt2", "org/model-1.5b", "./gpt2", "weights.pt")]
    [True, True, False, False]
    """
    if named.lower().endswith((*SUFFIXES, INDEX_SUFFIX)):
        return False
    return bool(_NAME.fullmatch(named)) and ".." not in named and "--" not in named


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def fetched_weights(name: str, *, revision: str | None) -> Path:
    """File of weights, or index of shards, of a model on the hub, with all that belongs to it.

    Only the configuration and the weights are fetched, safetensors where there are any. What the
    cache holds is not fetched again; offline (HF_HUB_OFFLINE, or no connection) the cache alone
    is used.

    Parameters
    ----------
    name
        name or org/name.
    revision
        Branch, tag or commit; None for the default branch.

    Returns
    -------
    Path
        In the cache's snapshot of one commit.

    Raises
    ------
    MissingFileError
        If the hub has no such model, revision or weights, or it is not in the cache and the hub
        cannot be reached.
    SourceError
        If fetching fails for another reason, such as a full disk.
    """
    repository = _Repository(name, revision)
    repository.file(CONFIG_NAME)
    names = (*STANDARD_NAMES, *_OTHER_NAMES)
    for candidate in names:
        weights = repository.file(candidate)
        if weights is None:
            continue
        if candidate.endswith(INDEX_SUFFIX):
            shards = sorted(set(weight_map(weights).values()))
            missing = [shard for shard in shards if repository.file(shard) is None]
            if missing:
                raise MissingFileError(
                    f"{len(missing)} of the {len(shards)} shards of {name} are {repository.lack}: "
                    f"{listed(missing, _LISTED)}.",
                    hint=repository.hint,
                )
        return weights
    raise MissingFileError(
        f"the weights of {name} are {repository.lack}; looked for {', '.join(names)}.",
        hint=repository.hint,
    )


def seen_weights(name: str, *, revision: str | None) -> Path | HubPath:
    """The same for looking at headers: what is not in the cache stays on the hub.

    Of safetensors only the configuration and the index of shards are read whole, and files that the
    cache holds at the hub's commit are taken from it. Other formats are fetched as for a scan.

    Parameters, errors
        As for `fetched_weights`.
    """
    repository = _Repository(name, revision)
    for candidate in STANDARD_NAMES[:2]:
        place = repository.place(candidate)
        if place is None:
            continue
        if candidate.endswith(SAFETENSORS_SUFFIXES):
            files = [place]
        else:
            files = [place / shard for shard in sorted(set(weight_map(place).values()))]
        whole = all(repository.is_cached(one) for one in files)
        return fetched_weights(name, revision=repository.revision) if whole else place
    return fetched_weights(name, revision=repository.revision)


def revisions(name: str) -> list[str]:
    """Branches and tags of a model on the hub; offline those that the cache holds.

    Parameters
    ----------
    name
        name or org/name.

    Raises
    ------
    MissingFileError
        If the hub has no such model, and the cache none of its revisions.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import HfHubHTTPError

    try:
        found = HfApi(library_name="flagscope").list_repo_refs(name)
    except HfHubHTTPError as error:
        raise MissingFileError(
            f"{name!r} is neither a path that exists nor a model on the hub.",
            hint="check the name; for a private model run `hf auth login` first.",
        ) from error
    except Exception:  # not reached; errors differ between versions
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
        here = folder / "refs"
        cached = [str(ref.relative_to(here)) for ref in here.rglob("*") if ref.is_file()]
        if not cached:
            raise MissingFileError(
                f"the hub was not reached, and the cache holds no revision of {name}.",
                hint="connect, or unset HF_HUB_OFFLINE, and try again.",
            ) from None
        return sorted(cached)
    return sorted({ref.name for ref in (*found.branches, *found.tags)})


def hash_of_cached(path: Path) -> str | None:
    """SHA-256 of a file in the hub's cache, which names large files by it; None of another file."""
    stored = path.resolve()
    return stored.name if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name) else None


def hashes_on_hub(name: str, files: Sequence[str], *, revision: str | None) -> list[str | None]:
    """SHA-256 of files of a model, from the cache or from what the hub says without their contents.

    Parameters
    ----------
    name
        name or org/name.
    files
        Names of files; one request for each that the cache does not hold.

    Returns
    -------
    list of str or None
        None for a small file, which the hub does not hash so, and for one that was not found.
    """
    repository = _Repository(name, revision)
    return [repository.sha256(file) for file in files]


class _Repository:
    """One model on the hub, at one commit, and in the cache alone once the hub did not answer."""

    def __init__(self, name: str, revision: str | None) -> None:
        self._name = name
        self._revision = revision
        self._cache_only = False
        self._asked = False  # whether it is known that the hub answers

    @property
    def lack(self) -> str:
        return "not in the local cache" if self._cache_only else "not on the hub"

    @property
    def hint(self) -> str:
        if self._cache_only:
            return (
                f"there is no file or folder {self._name!r} here: check the path. The hub was not "
                "reached: for a model there, connect, or unset HF_HUB_OFFLINE, and try again."
            )
        return "download the file that you mean and give its path."

    @property
    def revision(self) -> str | None:
        """The commit, once a file was found; what was asked for before."""
        return self._revision

    def place(self, filename: str) -> HubPath | None:
        """A file where it lies on the hub; None if there is none or the hub does not answer."""
        from huggingface_hub.utils import EntryNotFoundError

        with self._explained(filename):
            try:
                found = self._answer(filename)
            except EntryNotFoundError:
                return None
        if found is None or found.commit_hash is None or not is_commit(found.commit_hash):
            return None
        self._revision = found.commit_hash
        return HubPath(self._name, found.commit_hash, filename)

    def _answer(self, filename: str) -> HfFileMetadata | None:
        """What the hub says of a file, without its contents; None if it was not reached.

        An answer that there is none, or that it may not be seen, is raised by the hub's library.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import HfHubHTTPError, HFValidationError, build_hf_headers

        try:
            url = hf_hub_url(self._name, filename, revision=self._revision)
            headers = build_hf_headers(library_name="flagscope")
            return get_hf_file_metadata(url, headers=headers, timeout=seconds())
        except (HfHubHTTPError, HFValidationError):
            raise
        except Exception:  # of the HTTP library, which differs between versions
            return None  # the cache may do

    def is_cached(self, path: HubPath) -> bool:
        """Whether the cache holds a file at its commit."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._name, path.name, revision=self._revision)
        return isinstance(found, str)

    def sha256(self, filename: str) -> str | None:
        """Of a large file, without its contents; None where it is not known."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.utils import HfHubHTTPError, HFValidationError

        try:
            cached = try_to_load_from_cache(self._name, filename, revision=self._revision)
            if isinstance(cached, str):
                return hash_of_cached(Path(cached))
            found = self._answer(filename)
        except (HfHubHTTPError, HFValidationError):
            return None
        tag = None if found is None else found.etag
        return tag if tag is not None and _SHA256.fullmatch(tag) else None

    def _is_here(self, filename: str) -> bool:
        """Whether the cache holds a file, or knows that the model has none of its name."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.utils import HFValidationError

        try:
            found = try_to_load_from_cache(self._name, filename, revision=self._revision)
        except HFValidationError:
            return False
        return found is not None

    def _answers(self, filename: str) -> bool:
        """Whether the hub says anything of a file, be it that there is none."""
        from huggingface_hub.utils import HfHubHTTPError, HFValidationError

        try:
            return self._answer(filename) is not None
        except (HfHubHTTPError, HFValidationError):
            return True  # the download explains it

    def file(self, filename: str) -> Path | None:
        """Path of a file, fetched if need be; None if the model has no such file."""
        # Here, not above: the import takes 0.2 s, which local files need not wait for.
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

        if not self._asked:
            # The library would ask an address that nobody answers again for half a minute.
            self._asked = True
            self._cache_only = not self._is_here(filename) and not self._answers(filename)
        with self._explained(filename):
            try:
                fetched = hf_hub_download(
                    self._name,
                    filename,
                    revision=self._revision,
                    local_files_only=self._cache_only,
                    etag_timeout=seconds(),
                    library_name="flagscope",
                )
            except LocalEntryNotFoundError:
                # Neither reached nor cached. Asking again for every file would wait every time.
                self._cache_only = True
                return None
            except EntryNotFoundError:
                return None
        path = Path(fetched)
        # A snapshot's folder is named by its commit. Holding on to it keeps shards of one model
        # together if somebody pushes meanwhile, and spares a request for what is cached.
        if is_commit(path.parent.name):
            self._revision = path.parent.name
        return path

    @contextmanager
    def _explained(self, filename: str) -> Iterator[None]:
        """Errors of the hub's library as errors of a source, with a hint."""
        from huggingface_hub.utils import (
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            yield
        except GatedRepoError as error:
            raise MissingFileError(
                f"access to {self._name} is restricted.",
                hint="accept its terms on its page, then run `hf auth login`.",
            ) from error
        except RevisionNotFoundError as error:
            raise MissingFileError(
                f"{self._name} has no revision {self._revision!r}.",
                hint="name a branch, a tag or a commit of it.",
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise MissingFileError(
                f"{self._name!r} is neither a path that exists nor a model on the hub.",
                hint="check the name; for a private model run `hf auth login` first.",
            ) from error
        except Exception as error:  # of the HTTP library, which differs between versions
            raise SourceError(
                f"cannot fetch {filename} of {self._name}: {str(error).partition(chr(10))[0]}",
                hint="try again later, or download the files and give their folder.",
            ) from error
