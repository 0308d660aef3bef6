"""Results that several tests read; built once."""

from __future__ import annotations

import pytest

from flagscope.records import ScanResult
from report import synthetic


@pytest.fixture(scope="session")
def transformer() -> ScanResult:
    return synthetic.transformer()


@pytest.fixture(scope="session")
def stream() -> ScanResult:
    return synthetic.stream()


@pytest.fixture(
    params=["small", "grouped", "resnet", "perceptron", "empty", "hostile", "stream"],
    scope="session",
)
def any_result(request: pytest.FixtureRequest) -> ScanResult:
    if request.param == "small":
        return synthetic.transformer(layers=2, heads=4, rank=8, d=32, planted=False)
    if request.param == "grouped":
        return synthetic.transformer(
            layers=2, heads=8, key_heads=2, rank=8, d=64, rope=True, planted=False
        )
    return getattr(synthetic, request.param)()
