"""Writes which predictors passed, for which merges, as a small file that reports quote.

    python -m flagscope.lab.experiments.merge_prediction.verdicts \
        docs/lab/merge-prediction/results.json src/flagscope/report/comparison/merge_predictors.json

The file follows from the results alone. It holds every interval, so that a report can show the
numbers where it may not give a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flagscope.errors import InputError
from flagscope.lab.experiment import Estimate
from flagscope.lab.experiments.merge_prediction.claims import estimate_name
from flagscope.lab.experiments.merge_prediction.merges import MERGES
from flagscope.lab.experiments.merge_prediction.predictors import PREDICTORS, Predictor
from flagscope.lab.intervals import joint_ends
from flagscope.writing import write_whole

SCHEMA = "flagscope.lab.merge-predictors/1"
_RULE = (
    "predicts: the 95 % interval of Spearman's rho over the 28 pairs, a jackknife over the 8 "
    "tasks, excludes 0 in the expected direction; predicts_jointly: so does the interval at the "
    "joint level of all that are compared"
)


def merge_verdicts(results: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file, from the content of results.json.

    Parameters
    ----------
    results
        Results of the experiment `merge-prediction`.

    Returns
    -------
    dict
        `verdicts` lists each (predictor, merge, kind of fine-tuning) with ρ, both intervals and
        whether they pass; `joint_of` is how many share the joint level: those from weights for a
        number from weights, those from data for one from data.

    Raises
    ------
    InputError
        If the results are those of another experiment, or lack a predictor.
    """
    if results.get("name") != "merge-prediction":
        raise InputError(
            f"these are results of {results.get('name')!r}", hint="give those of merge-prediction"
        )
    by_claim = {finding["claim"]: finding["estimates"] for finding in results["findings"]}
    missing = [p.name for p in PREDICTORS if p.claim not in by_claim]
    if missing:
        raise InputError(
            f"the results lack {', '.join(missing)}", hint="run the experiment again as it stands"
        )
    together = {
        data: sum(len(by_claim[p.claim]) for p in PREDICTORS if p.needs_data == data)
        for data in (False, True)
    }
    return {
        "schema": SCHEMA,
        "experiment": results["name"],
        "quick": results["settings"]["quick"],
        "rule": _RULE,
        "merges": list(MERGES),
        "predictors": [
            {"name": p.name, "label": p.label, "needs_data": p.needs_data, "expected_sign": p.sign}
            for p in PREDICTORS
        ],
        "verdicts": [
            verdict
            for p in PREDICTORS
            for verdict in _of_predictor(p, by_claim[p.claim], together[p.needs_data])
        ],
    }


def _of_predictor(
    predictor: Predictor, estimates: list[dict[str, Any]], together: int
) -> list[dict[str, Any]]:
    named = {e["name"]: e for e in estimates}
    verdicts = []
    for tuning in predictor.tunings:
        for merge in MERGES:
            found = named.get(estimate_name(merge, tuning))
            if found is None:
                continue
            estimate = Estimate(**{**found, "bounds": tuple(found["bounds"])})
            own, joint = joint_ends(estimate, 1), joint_ends(estimate, together)
            if own is None or joint is None:
                continue
            verdicts.append(
                {
                    "predictor": predictor.name,
                    "merge": merge,
                    "tuning": tuning,
                    "rho": _short(estimate.value),
                    "low": _short(own[0]),
                    "high": _short(own[1]),
                    "joint_low": _short(joint[0]),
                    "joint_high": _short(joint[1]),
                    "joint_of": together,
                    "predicts": _excludes_zero(own, predictor.sign),
                    "predicts_jointly": _excludes_zero(joint, predictor.sign),
                }
            )
    return verdicts


def _excludes_zero(ends: tuple[float, float], sign: int) -> bool:
    return ends[0] > 0 if sign > 0 else ends[1] < 0


def _short(value: float) -> float:
    return float(f"{value:.4g}")


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False))
@click.argument("target", type=click.Path(dir_okay=False))
def _main(results: str, target: str) -> None:
    """Write the verdicts of RESULTS to TARGET."""
    content = merge_verdicts(json.loads(Path(results).read_text(encoding="utf-8")))
    write_whole(Path(target), json.dumps(content, indent=1, allow_nan=False) + "\n")
    click.echo(target)


if __name__ == "__main__":
    _main()
