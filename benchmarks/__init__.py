"""Measurements of flagscope beside what the machine can do and what other tools take.

    python -m benchmarks [--parts scan,peers,...] [--repeats 5] [--quick] [--resume]

from the root of the repository. See docs/performance.md for the method and the results.
"""
