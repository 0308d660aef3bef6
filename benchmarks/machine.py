"""The machine and the libraries that numbers come from."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("flagscope", "torch", "numpy", "scipy", "safetensors")


def described() -> dict[str, Any]:
    """Processor, cores, memory, libraries: no name of the machine."""
    import scipy.linalg  # noqa: F401 - loads the BLAS of scipy
    import torch
    from threadpoolctl import threadpool_info

    lines = [line.strip() for line in torch.__config__.show().splitlines()]
    lapack = next((line for line in lines if "LAPACK" in line or "BLAS" in line), "unknown")
    mkl = next((line.removeprefix("- ") for line in lines if "Math Kernel Library" in line), lapack)
    pools = {
        f"{one['internal_api']} {one.get('version') or ''}".strip()
        for one in threadpool_info()
        if one["user_api"] == "blas"
    }
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch_blas": mkl,
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "other_blas": sorted(pools),
        "packages": {name: _version(name) for name in _PACKAGES},
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    name = info.get("model name", platform.processor())
    # Virtual machines hide the number of the model in its name.
    return f"{name}, family {info.get('cpu family')} model {info.get('model')}"


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
