"""Fills the tables of README.md and of pages in docs/, and writes the SROS 2 policy: `make docs`.

A table stands between <!-- NAME --> and <!-- /NAME -->. Figures come from docs/benchmarks/*.json, which
`mfuser bench --json`, `mfuser evaluate --out` (summary.json) and docs/measure_*.py write, and from nowhere else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mfuser_ros.commands.app import app
from mfuser_ros.node import interface, launching, parameters, policy
from mfuser_ros.training.rows import load_experiment

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CHECKPOINTS = ROOT / "docs" / "checkpoints.md"
EXPORT = ROOT / "docs" / "export.md"
GENERALISATION = ROOT / "docs" / "generalisation.md"
DRIVABLE = ROOT / "docs" / "drivable.md"
POLICY = ROOT / "config" / "security" / "policy.xml"
BENCHMARKS = ROOT / "docs" / "benchmarks"

Json = dict[str, Any]


def picture() -> str:
    """The frame of the demo that stands at the top, once there is one."""
    file = "docs/pictures/overlay.jpg"
    words = "A frame of the demo: picture, classes and the drivable area from above"
    return f"![{words}]({file})" if (ROOT / file).exists() else ""


def commands() -> str:
    """One line per verb of the command."""
    verbs = [(entry.callback.__name__, entry.callback) for entry in app.registered_commands]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands
        verbs += [(f"{group.name} {entry.callback.__name__}", entry.callback) for entry in inner]
    lines = ["| `mfuser` | does |", "|---|---|"]
    for name, verb in sorted(verbs):
        paragraph = " ".join(verb.__doc__.split("\n\n")[0].split())
        lines.append(f"| `{name}` | {paragraph} |")
    return "\n".join(lines)


def launch_arguments() -> str:
    """One line per argument of the launch file."""
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for name, (default, description) in launching.arguments().items():
        shown = default.replace(str(ROOT), "share/mfuser_ros")
        lines.append(f"| `{name}` | {f'`{shown}`' if shown else ''} | {description} |")
    return "\n".join(lines)


def speed(files: list[tuple[str, Json]]) -> str:
    """Rows of `mfuser bench`: whole pictures, the drivable area, and windows; not of a GPU that others used, too."""
    lines = ["| what | on | size | batch | p50 ms | p95 ms | peak MB | measured |", "|---|---|---|---|---|---|---|---|"]
    for name, content in files:
        date = content["environment"]["date"]
        for row in content["rows"]:
            if row["what"] not in ("frame", "drivable", "window") or row.get("gpu", "quiet") != "quiet":
                continue
            on = row["device_name"]
            if row["device"] == "cpu":
                on += ", 1 thread" if row["threads"] == 1 else f", {row['threads']} threads"
            memory = row.get("peak_gpu_mb", row.get("peak_rss_mb"))
            cells = [
                _measured_thing(row), on, row["size"], row["batch"],
                *(f"{row['ms'][key]:.{1 if row['ms'][key] >= 20 else 2}f}" if key in row["ms"] else "-"
                  for key in ("p50", "p95")),
                "-" if memory is None else f"{memory:.0f}", f"[{date}](docs/benchmarks/{name})",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: `make bench` measures."


def _measured_thing(row: Json) -> str:
    if row["what"] == "drivable":
        return "drivable area"
    weights = ", random weights" if row.get("weights") == "random" else ""
    part = "all steps" if row["what"] == "frame" else f"network alone, {row['backend']}"
    return f"`{row['model']}`{weights}, {row['precision']}, {part}"


def accuracy(files: list[tuple[str, Json]]) -> str:
    """Summaries of `mfuser evaluate`."""
    lines = ["| set | pictures | model | mIoU | road IoU | pixel accuracy |", "|---|---|---|---|---|---|"]
    lines += [
        f"| [{content['input']}](docs/benchmarks/{name}) | {content['frames']} | `{content['model']['name']}` "
        f"| {_percent(content['miou'])} | {_percent(content['road']['iou'])} | {_percent(content['pixel_accuracy'])} |"
        for name, content in files
    ]
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: `mfuser evaluate` measures."


def witness(rows: list[Json]) -> str:
    """Verdicts on the drivable area in rendered scenes."""
    lines = [
        "| error | scenes | IoU, mean | lowest | wrong free cells, mean | most | feet marked, mean | lowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['scenes']} | {row['iou_mean']:.3f} | {row['iou_lowest']:.3f} "
        f"| {row['wrong_free_mean']:.1f} | {row['wrong_free_most']} "
        f"| {row['feet_mean']:.3f} | {row['feet_lowest']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def update_cost(rows: list[Json]) -> str:
    """CPU time of an update."""
    lines = ["| one 1280x720 mask, known pose, one core | median (ms) | 95 % |", "|---|---|---|"]
    for row in rows:
        decay = f"decay {row['decay_s']:g} s" if row["decay_s"] else "no decay"
        lines.append(f"| {decay} | {row['cpu_ms']['p50']:.1f} | {row['cpu_ms']['p95']:.1f} |")
    return "\n".join(lines)


def poses(rows: list[Json]) -> str:
    """Errors of pitch and height from rendered roads."""
    lines = [
        "| road | poses told | pitch error (degrees), median | 95 % | largest | height error (%), median | 95 % "
        "| largest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pitch, height = row["pitch_error_deg"], row["height_error_percent"]
        numbers = [f"{pitch[key]:.2f}" for key in ("median", "p95", "largest")]
        numbers += [f"{height[key]:.1f}" for key in ("median", "p95", "largest")]
        lines.append(f"| {row['name']} | {row['told']} of {row['poses']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def conversions(files: list[tuple[str, Json]]) -> str:
    """Rows of docs/measure_conversion.py."""
    lines = ["| variant | file | keys | MB in | MB out | peak MB | s | measured |", "|---|---|---|---|---|---|---|---|"]
    for name, content in files:
        row = content["conversion"]
        file = f"`.{row['container']}`{', `--drop-text`' if row['drop_text'] else ''}"
        lines.append(
            f"| `{row['preset']}` | {file} | {row['keys']} | {row['source_mb']} | {row['written_mb']} "
            f"| {row['peak_rss_mb']} | {row['seconds']:.0f} | [{row['date']}](benchmarks/{name}) |"
        )
    return "\n".join(lines)


def rewrites(files: list[tuple[str, Json]]) -> str:
    """Rows of docs/measure_rewrites.py."""
    lines = [
        "| model | on | input | everything | last prediction | optimized | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, content in files:
        row = content["rewrites"]
        cells = [f"{of['p50']:.0f} ({of['min']:.0f})" for of in row["ms"].values()]
        lines.append(
            f"| `{row['preset']}`, {row['precision']} | {row['device']} | {row['input']} | {' | '.join(cells)} "
            f"| [{row['date']}](benchmarks/{name}) |"
        )
    return "\n".join(lines)


def generalisation() -> str:
    """Trainings of docs/generalisation.py: mIoU on the source and on the unseen sets, mean over the seeds."""
    experiment = load_experiment(ROOT / "config" / "train" / "generalisation.yaml")
    trainings = json.loads((BENCHMARKS / "generalisation.json").read_text(encoding="utf-8"))["trainings"]
    sets = sorted({name for training in trainings for name in training["scores"]})
    lines = [
        f"| row | towers | {' | '.join(sets)} | seeds | steps |",
        f"|---|---|{'---|' * len(sets)}---|---|",
    ]
    for variant, how in experiment.variants.items():
        for row, what in experiment.rows.items():
            runs = [run for run in trainings if (run["row"], run["variant"]) == (row, variant)]
            cells = [
                _spread([100 * run["scores"][name]["miou"] for run in runs if name in run["scores"]]) for name in sets
            ]
            steps = ", ".join(str(run["steps"]) for run in runs)
            lines.append(f"| {what.title} | {how.title} | {' | '.join(cells)} | {len(runs) or 'not run'} | {steps} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Mean, and lowest to highest where there are several."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def engines() -> str:
    """What `docs/cpu_engines.py` measured: processor time of one picture, and mIoU."""
    content = json.loads((BENCHMARKS / "cpu_engines.json").read_text(encoding="utf-8"))
    times, scores = content["ms"], content["scores"]
    enlarging = times["enlarge"]["cpu"]["p50"]
    torch = times["torch float32"]["cpu"]["p50"] + enlarging
    sets = sorted({name for of_engine in scores.values() for name in of_engine})
    lines = [
        f"| engine | network, ms of one core: median (least) | picture, times as fast as torch | {' | '.join(sets)} |",
        f"|---|---|---|{'---|' * len(sets)}",
    ]
    for name, time in times.items():
        if name == "enlarge":
            continue
        cells = [_percent(scores[name][of]["miou"] / 100) for of in sets]
        gain = torch / (time["cpu"]["p50"] + enlarging)
        own = f"{time['cpu']['p50']:.0f} ({time['cpu']['min']:.0f})"
        lines.append(f"| {name} | {own} | {gain:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(text: str, tables: dict[str, str]) -> str:
    """`text` with each table between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->)\n.*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda found, table=table: "\n".join(filter(None, [found[1], table, found[2]])), text, flags=re.S
        )
        if count != 1:
            raise ValueError(f"<!-- {name} --> ... <!-- /{name} --> stands there {count} times")
    return text


def tables() -> dict[str, str]:
    """Every table by its mark."""
    files = [(file.name, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(BENCHMARKS.glob("*.json"))]
    return {
        "picture": picture(),
        "commands": commands(),
        "launch": launch_arguments(),
        "subscribes": interface.markdown_table(interface.SUBSCRIBED, "subscribes").rstrip("\n"),
        "publishes": interface.markdown_table(interface.PUBLISHED, "publishes").rstrip("\n"),
        "parameters": parameters.markdown_table().rstrip("\n"),
        "speed": speed([(name, content) for name, content in files if "rows" in content]),
        "accuracy": accuracy([(name, content) for name, content in files if "miou" in content]),
    }


def drivable_tables() -> dict[str, str]:
    """Every table of docs/drivable.md by its mark."""
    found = {name: json.loads((BENCHMARKS / f"{name}.json").read_text("utf-8")) for name in ("drivable", "calibrate")}
    return {
        "witness": witness(found["drivable"]["witness"]),
        "update": update_cost(found["drivable"]["update"]),
        "pose": poses(found["calibrate"]["poses"]),
    }


def checkpoint_tables() -> dict[str, str]:
    """Every table of docs/checkpoints.md by its mark."""
    files = [(file.name, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(BENCHMARKS.glob("*.json"))]
    return {
        "conversions": conversions([(name, content) for name, content in files if "conversion" in content]),
        "rewrites": rewrites([(name, content) for name, content in files if "rewrites" in content]),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


PAGES = {
    README: tables,
    CHECKPOINTS: checkpoint_tables,
    DRIVABLE: drivable_tables,
    GENERALISATION: lambda: {"generalisation": generalisation()},
    EXPORT: lambda: {"engines": engines()},
}

if __name__ == "__main__":
    for page, of_page in PAGES.items():
        page.write_text(filled(page.read_text(encoding="utf-8"), of_page()), encoding="utf-8")
    settings = policy.read_settings(ROOT / "config" / "segment.param.yaml")
    POLICY.write_text(policy.policy_xml(settings, namespace="/perception"), encoding="utf-8")
