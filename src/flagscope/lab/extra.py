"""Imports packages that only the laboratory needs, where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from flagscope.errors import MissingExtraError

# Name of the package to install, by module.
PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def lab_package(module: str) -> ModuleType:
    """Import a module of a package of the extra `lab`.

    Raises
    ------
    MissingExtraError
        If the package is not installed.

    Examples
    --------
    >>> lab_package("sklearn.datasets").__name__
    'sklearn.datasets'
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"the laboratory needs the package {PACKAGES.get(package, package)}, which is not "
            "installed",
            hint="pip install 'flagscope[lab]'",
        ) from None


def check_lab_packages() -> None:
    """Raise MissingExtraError before anything is measured."""
    for module in PACKAGES:
        lab_package(module)
