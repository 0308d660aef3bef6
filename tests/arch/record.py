"""What the contract tests prove, as the registry holds it. Run to rewrite the registry:

python tests/arch/record.py
"""

import json
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from arch.cases import CASES, build, prove, prove_saved
from arch.net_cases import CONFIGS, NETS, prove_net

Entry = dict[str, Any]

NOTES = {
    "mlp_mixer": "not in transformers; proven on a small module with the tensor names of timm",
    "resnet": "the CIFAR, torchvision and timm names; proven on small modules with those names",
    "convnext": "the timm names on a small module with those names",
    "mlp": "numbered linear layers; proven on nn.Sequential",
    "mamba": "channels of the state space trade places with all that belongs to them; no other "
    "freedom is claimed",
    "mamba2": "channels of a head trade places with all that belongs to them; no other freedom is "
    "claimed",
    "mixtral": "experts in their eager implementation",
}


def registry_path() -> Path:
    """Where the registry lies in the package."""
    return Path(str(resources.files("flagscope.arch").joinpath("registry.json")))


def recorded() -> Entry:
    """The registry as it is."""
    return json.loads(registry_path().read_text(encoding="utf-8"))


def merged(live: dict[str, Entry], saved: dict[str, str], nets: dict[str, Entry]) -> Entry:
    """The registry that these proofs make: by case, and together for each family."""
    cases = {}
    for name, one in live.items():
        cases[name] = {**one, "live": True, "saved": saved[name]}
    for name, one in nets.items():
        model_type = CONFIGS.get(name, {}).get("model_type", "")
        cases[name] = {**one, "model_type": model_type, "live": False, "saved": "none"}
    families: dict[str, Entry] = {}
    for name in sorted({one["family"] for one in cases.values()}):
        own = [one for one in cases.values() if one["family"] == name]
        families[name] = {
            "models": sorted({one["model"] for one in own}),
            "model_types": sorted({one["model_type"] for one in own} - {""}),
            "pairs": sorted({kind for one in own for kind in one["pairs"]}),
            "changes": sorted({change for one in own for change in one["changes"]}),
            "live": any(one["live"] for one in own),
            "saved": next(
                kind for kind in ("proven", "same", "none")
                if any(one["saved"] == kind for one in own)
            ),
            "note": NOTES.get(name, ""),
        }  # fmt: skip
    return {"families": families, "cases": dict(sorted(cases.items()))}


def live_proof(case: str) -> Entry:
    """A case's proof, with the model type of its config."""
    return {**prove(case), "model_type": build(case)[1]["model_type"]}


def main() -> None:
    """Make all proofs and write them down."""
    with tempfile.TemporaryDirectory() as folder:
        saved = {}
        for case in CASES:
            place = Path(folder) / case
            place.mkdir()
            saved[case] = prove_saved(case, place)
    live = {case: live_proof(case) for case in CASES}
    registry = merged(live, saved, {case: prove_net(case) for case in NETS})
    registry_path().write_text(json.dumps(registry, indent=1) + "\n", encoding="utf-8")
    print(f"{len(registry['families'])} families, {len(registry['cases'])} cases")


if __name__ == "__main__":
    main()
