"""Trains and scores the rows of config/train/generalisation.yaml; see docs/generalisation.md.

python docs/generalisation.py train --data DATA --towers WEIGHTS --out RUNS --minutes 8 full.frozen full.tuned
python docs/generalisation.py score --data DATA --out RUNS --json docs/benchmarks/generalisation.json
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mfuser_ros.checkpoints.store import load_model
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.opening import open_split
from mfuser_ros.evaluation.dataset import evaluate, network_probabilities
from mfuser_ros.evaluation.summary import summarise
from mfuser_ros.inference.loading import choose_device
from mfuser_ros.training.loop import Limits
from mfuser_ros.training.rows import load_experiment, row_of
from mfuser_ros.training.together import train_together

EXPERIMENT = Path(__file__).resolve().parents[1] / "config" / "train" / "generalisation.yaml"
TARGETS = ("cityscapes256/val", "camvid/day", "camvid/dusk", "idd_lite/val")  # the first is the source's own


def train(arguments: argparse.Namespace) -> None:
    """Train the rows side by side."""
    experiment = load_experiment(arguments.experiment)
    rows = [row_of(experiment, arguments.experiment, name, arguments.seed) for name in arguments.rows]
    train_together(
        rows,
        data=arguments.data,
        towers=arguments.towers,
        out=arguments.out,
        device=choose_device(arguments.device),
        limits=Limits(arguments.steps or rows[0].recipe.steps, arguments.minutes),
        report=lambda line: print(line, flush=True),
    )


def score(arguments: argparse.Namespace) -> None:
    """Score every training under --out that has not been scored yet, and write all scores."""
    files = sorted(path for path in arguments.out.glob("*/*.safetensors") if not (path.parent / "scores.json").exists())
    jobs = [(file, arguments.data, arguments.device, target) for target in TARGETS for file in files]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        scored = list(pool.map(_score, *zip(*jobs, strict=True))) if jobs else []
    for file in files:
        own = {target: result for (path, _, _, target), result in zip(jobs, scored, strict=True) if path == file}
        (file.parent / "scores.json").write_text(json.dumps(own), encoding="utf-8")
    rows = [_row(path.parent) for path in sorted(arguments.out.glob("*/scores.json"))]
    environment = {"torch": torch.__version__, "python": platform.python_version()}
    if torch.cuda.is_available():
        environment["gpu"] = torch.cuda.get_device_name()
    arguments.json.write_text(
        json.dumps({"version": 1, "environment": environment, "trainings": rows}, indent=1) + "\n"
    )


def _score(file: Path, data: Path, device: str, target: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    name, _, split = target.partition("/")
    config = load_config(name)
    dataset = open_split(config, split, data)
    chosen = choose_device(device)
    model, card = load_model(file)
    probabilities = network_probabilities(model.to(chosen).eval(), chosen, config.size)
    result = evaluate((dataset[index] for index in range(len(dataset))), config, probabilities)
    summary = summarise(
        result, source=target, model={"name": card.name, "sha256": card.sha256}, settings={"size": list(config.size)}
    )
    print(f"{file.parent.name}  {target}  {100 * summary['miou']:.2f}", flush=True)
    return {
        "miou": summary["miou"],
        "road": summary["road"],
        "iou": {entry["name"]: entry["iou"] for entry in summary["classes"]},
    }


def _row(folder: Path) -> dict[str, Any]:
    row, variant, seed = folder.name.split(".")
    last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "row": row,
        "variant": variant,
        "seed": int(seed),
        "steps": last["step"],
        "minutes": round(last["elapsed_s"] / 60, 1),
        "scores": json.loads((folder / "scores.json").read_text(encoding="utf-8")),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb in (train, score):
        one = verbs.add_parser(verb.__name__, help=verb.__doc__)
        one.set_defaults(run=verb)
        one.add_argument("--data", type=Path, required=True, help="folder of the data sets")
        one.add_argument("--out", type=Path, required=True, help="folder with one folder for each training")
        one.add_argument("--device", default="auto")
        if verb is score:
            one.add_argument("--json", type=Path, required=True, help="file for all scores")
            one.add_argument("--workers", type=int, default=1)
            continue
        one.add_argument("rows", nargs="+", help="ROW.VARIANT of the experiment")
        one.add_argument("--towers", type=Path, required=True, help="folder of the pretrained towers")
        one.add_argument("--experiment", type=Path, default=EXPERIMENT)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--minutes", type=float)
        one.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
