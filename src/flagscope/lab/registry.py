"""Finds experiments: folders and files of `flagscope/lab/experiments`, or your own files."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from flagscope.errors import InputError
from flagscope.lab import experiments
from flagscope.lab.experiment import Experiment


def experiment_names() -> tuple[str, ...]:
    """Names of the experiments that ship with flagscope, without importing them.

    Examples
    --------
    >>> "ridge-rate" in experiment_names()
    True
    """
    modules = pkgutil.iter_modules(experiments.__path__)
    return tuple(sorted(m.name.replace("_", "-") for m in modules if m.name[0] != "_"))


def load_experiment(reference: str) -> Experiment:
    """Load an experiment by name, or from a Python file that ends with `EXPERIMENT = ...`.

    Raises
    ------
    InputError
        If the name is unknown, or the file is missing or does not define an experiment.

    Examples
    --------
    >>> load_experiment("strata").name
    'strata'
    """
    if reference.endswith(".py"):
        module = _module_of_file(Path(reference))
    elif reference in experiment_names():
        module = import_module(f"{experiments.__name__}.{reference.replace('-', '_')}")
    else:
        raise _unknown(reference)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise InputError(
            f"{reference} defines no experiment",
            hint="end the file with EXPERIMENT = YourExperiment()",
        )
    return experiment


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="see flagscope lab --list")
    # Under a unique name, so that two files called experiment.py do not collide.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"flagscope_lab_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module while they are created.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _unknown(name: str) -> InputError:
    known = experiment_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return InputError(f"there is no experiment {name!r}", hint=hint)
