"""Paths of the bundled checkpoints. The README.md next to them says how they were made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from flagscope.errors import MissingFileError


def checkpoints() -> list[Path]:
    """Files of the bundled training run, from initialisation to the end.

    One training of a GPT-2-style character model with 4 layers, 6 heads and width 96; the steps
    are about a factor of five apart. All share the `config.json` in the same folder, which is
    where a reader of a single file looks for it.

    Returns
    -------
    list of Path
        Five float16 safetensors files, in training order, each below 1 MB.

    Raises
    ------
    MissingFileError
        If the files were not installed with the package.

    References
    ----------
    The architecture is that of Radford et al., Language Models are Unsupervised Multitask
    Learners (2019).

    Examples
    --------
    >>> from flagscope.demo import checkpoints
    >>> [path.name for path in checkpoints()][0]
    'step-000000.safetensors'
    """
    folder = Path(str(resources.files("flagscope.demo")))
    files = sorted(folder.glob("step-*.safetensors"))
    if not files:
        raise MissingFileError(
            f"the bundled checkpoints are not in {folder}",
            hint="reinstall flagscope; its wheel and its source archive both hold them.",
        )
    return files


def final() -> Path:
    """File of the trained model: the last of `checkpoints`.

    Returns
    -------
    Path
        A float16 safetensors file with `config.json` next to it.

    Raises
    ------
    MissingFileError
        If the files were not installed with the package.

    Examples
    --------
    >>> from flagscope.demo import checkpoints, final
    >>> final() == checkpoints()[-1]
    True
    """
    return checkpoints()[-1]
