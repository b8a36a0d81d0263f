"""`mfuser evaluate`: scores of a model on labelled sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mfuser_ros.errors import ConfigurationError, InputError


def evaluate(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SET/SPLIT|DIR|BAG...",
            help="Such as camvid/dusk or my.yaml/test with --data; the folder of a set in its official layout; bags, "
            "or a folder of bags.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets, for SET/SPLIT.")] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary.json, frames.parquet and report.html; one each of several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    protocol: Annotated[
        Literal["published", "single"] | None,
        typer.Option(
            help="published: scaled as the set says, sliding windows. single: one pass over the whole picture. "
            "Left out: what the model was made for."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Less probable pixels are unknown, which counts as wrong; left out: none is."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the network's input in a single pass, instead of the set's.")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Only every Nth picture or frame, for a quick look or a large archive.")
    ] = 1,
    calibrate: Annotated[
        bool,
        typer.Option(help="Do not score: fit temperature and threshold on all sets, write them into the model."),
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC>=VALUE",
            help="Exit code 1 unless it holds: miou>=0.6, road.precision>=0.95, latency_ms.p95<=300.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Do not evaluate: put two results (folders of --out) side by side."),
    ] = None,
    scenarios: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judge the scenarios of a YAML on the bags in its folder (docs/bags.md)."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the scenarios' JUnit XML goes; else to --out.")
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Bags: picture topics; none: all cameras.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TOPIC=]WHERE",
            help="Bags: topic of label pictures, or folder of PNGs named by stamp or index; auto, none.",
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Bags: what label ids mean: a set of config/datasets or a YAML.")
    ] = None,
    label_tolerance: Annotated[
        float, typer.Option(min=0, help="Bags: a label is of a frame this near in time (s).")
    ] = 0.005,
    pose: Annotated[
        list[str] | None,
        typer.Option(metavar="[TOPIC=]X,Y,Z,ROLL,PITCH,YAW", help="Bags: pose of a camera (m, rad), for its ground."),
    ] = None,
    start: Annotated[float, typer.Option(help="Bags: leave out frames before this time (s).")] = 0.0,
    stop: Annotated[float | None, typer.Option(help="Bags: leave out frames from this time on (s).")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Bags: processes side by side; with --ray: actors, 0: all.")] = 0,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Bags: run on a Ray cluster: auto, HOST:PORT, or local.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Bags: of each process on a CPU; the last digits of scores depend on it.")
    ] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="Bags: YAML that renames or merges classes.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Play one bag at its own rate to the real node over DDS: rate, drops, ages.")
    ] = False,
    peak: Annotated[
        bool, typer.Option("--peak", help="As --live; then search the highest rate, and measure at 10, 30 and 60 Hz.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(help="Do not score: decode every pair, name the first bad file, print the shares of the labels."),
    ] = False,
    quiet: Annotated[bool, typer.Option(help="Print no table.")] = False,
) -> None:
    """Score a model on data sets (one confusion matrix over the set, at the size of its labels) or on bags.

    Every frame of a bag is looked at once, with or without labels. A bag is read as far as it goes; what is damaged is
    named, and the exit code is 2. The same command with the same --out goes on where it was interrupted, and does no
    bag twice.

    Example: mfuser evaluate camvid/dusk idd_lite/val --data data --out evaluation
    Example: mfuser evaluate --compare before after --limit 'miou.difference>=-0.005' --out comparison
    Example: mfuser evaluate drive.mcap --pose 1.5,0,1.4,-1.5708,0,-1.5708 --out evaluation
    Example: mfuser evaluate drive.mcap --live --limit 'age_p99_ms<=200' --limit 'drop_share<0.05' --out live
    """
    live = live or peak
    _check_use(inputs or [], compare, scenarios, limit, live=live)
    from mfuser_ros.bags.recording import find_bags  # noqa: PLC0415  torch, cv2 and rosbags take their time
    from mfuser_ros.evaluation.limits import parse_limit  # noqa: PLC0415

    limits = [parse_limit(text) for text in limit or []]
    if compare is not None:
        from mfuser_ros.commands.comparison import compare_runs  # noqa: PLC0415

        raise typer.Exit(0 if compare_runs(*compare, limits=limits, out=out, quiet=quiet) else 1)
    inputs = inputs or []
    bags = [[source] if "://" in source else [str(bag) for bag in find_bags(Path(source))] for source in inputs]
    if scenarios is not None or any(bags):
        from mfuser_ros.commands import bag_evaluation  # noqa: PLC0415

        settings = bag_evaluation.settings_of(
            model=model,
            device=device,
            vocabulary=None if vocabulary is None else str(vocabulary),
            threshold=threshold,
            size=_parsed(size),
            topics=tuple(topic or ()),
            labels=labels or [],
            scheme=scheme,
            label_tolerance_s=label_tolerance,
            poses=pose or [],
            start_s=start,
            stop_s=stop,
            every=every,
            threads=threads,
        )
        if live:
            from mfuser_ros.commands.ros import require_ros  # noqa: PLC0415

            require_ros()
            from mfuser_ros.commands.live_evaluation import evaluate_live  # noqa: PLC0415

            found = _all_bags(inputs, bags)
            raise typer.Exit(evaluate_live(found, settings, peak=peak, limits=limits, out=out, quiet=quiet))
        crew = bag_evaluation.Crew(workers=workers if workers or ray else 1, ray=ray)
        if scenarios is not None:
            from mfuser_ros.commands.scenarios import run_suite  # noqa: PLC0415

            raise typer.Exit(run_suite(scenarios, settings, out=out, report=junit, crew=crew, quiet=quiet))
        found = _all_bags(inputs, bags)
        verdict = bag_evaluation.evaluate_bags(found, settings, limits=limits, out=out, quiet=quiet, crew=crew)
        raise typer.Exit(verdict.code)
    if live:
        raise InputError(f"--live and {inputs[0]}: is no bag: give a .mcap, a .db3 or the folder of a bag")
    from mfuser_ros.commands import set_evaluation  # noqa: PLC0415

    options = set_evaluation.SetOptions(model, device, protocol, threshold or 0.0, _parsed(size), every, limits, quiet)
    splits = [set_evaluation.open_set(given, data) for given in inputs]
    if calibrate:
        set_evaluation.calibrate(splits, options)
        return
    holds = True
    for source, dataset in splits:
        if check:
            set_evaluation.check(source, dataset, options)
        else:
            folder = out if out is None or len(inputs) == 1 else out / source.replace("/", "_")
            holds &= set_evaluation.score(source, dataset, options, folder)
    if not holds:
        raise typer.Exit(1)


def _check_use(
    inputs: list[str],
    compare: tuple[Path, Path] | None,
    scenarios: Path | None,
    limit: list[str] | None,
    *,
    live: bool,
) -> None:
    """Refuse what contradicts itself."""
    if not inputs and scenarios is None and compare is None:
        raise ConfigurationError("nothing to evaluate: give bags, data sets, --scenarios FILE or --compare A B")
    if inputs and compare is not None:
        raise ConfigurationError(f"--compare and {inputs[0]}: compare results, or evaluate: not both at once")
    if inputs and scenarios is not None:
        raise ConfigurationError(f"--scenarios and {inputs[0]}: the scenarios name their bags: give one of both")
    if live and not inputs:
        raise ConfigurationError("--live: plays a bag: give one")
    if limit and scenarios is not None:
        raise ConfigurationError("--limit and --scenarios: the scenarios state their limits: leave --limit out")


def _all_bags(inputs: list[str], bags: list[list[str]]) -> list[str]:
    """The bags that all inputs stand for; an input without any among them is a mistake."""
    for source, found in zip(inputs, bags, strict=True):
        if not found:
            raise InputError(f"{source}: no bag: evaluate bags and data sets one after the other")
    return [bag for found in bags for bag in found]


def _parsed(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)


if __name__ == "__main__":
    typer.run(evaluate)
