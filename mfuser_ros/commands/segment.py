"""`mfuser segment`: masks of pictures, folders, videos and bags."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuser_ros.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    import numpy as np

    from mfuser_ros.commands.sources import Source
    from mfuser_ros.inference import Segmentation, Segmenter

JPEG_QUALITY = 90


def segment(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Pictures, folders of pictures, videos, bags.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also STEM_overlay.jpg; one STEM_overlay.mp4 for a video or bag.")
    ] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also STEM_confidence.png: probability of the best class, 0..255.")
    ] = False,
    steady: Annotated[
        bool, typer.Option("--steady", help="Videos and bags: hold labels that flicker from one picture to the next.")
    ] = False,
    flips: Annotated[
        bool, typer.Option("--flips", help="Videos and bags: also STEM_flips.json, how often labels change.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also DIR/STEM_features.png and DIR/STEM_queries.png: what the model sees."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Less probable pixels are 255; 0: none. Left out: the model's own."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    vocabulary: Annotated[Path | None, typer.Option(help="YAML of classes; new words need a text tower.")] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of `mfuser export`: OpenVINO runs it on the CPU, not torch.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Picture topic of a bag that has several.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write a mask for every picture: DIR/STEM.png, 8-bit grey class ids, 255 where the model does not know.

    Folders inside a folder are kept below DIR; picture N of a video or a bag becomes STEM_00000N.png. What cannot be
    read is named and left out, and the exit code is 2.

    --steady holds a label for one picture more where the next one says otherwise, never where that would hide a thing
    or call ground drivable. --flips follows points along the optical flow and counts changes of label, per second.

    --explain shows the first three principal components of both towers' features as red, green and blue, before and
    after the last fusion, and how far it moved them; and for each class where its query looks, and how surely it finds
    the class in the picture.

    Example: mfuser segment drive.mp4 street.jpg --out masks --overlay
    """
    import mfuser_ros  # noqa: PLC0415  cv2 and torch are imported where they are used
    from mfuser_ros.commands.progress import track  # noqa: PLC0415
    from mfuser_ros.commands.sources import find_sources  # noqa: PLC0415

    sources, refused = find_sources(inputs, out, topic=topic, explain=explain)
    run = _Run(out, overlay=overlay, confidence=confidence, steady=steady, flips=flips, explain=explain)
    for error in refused:
        run.complain(error)
    if sources:
        segmenter = mfuser_ros.load(model, device=device, threshold=threshold, vocabulary=vocabulary, onnx=onnx)
        total = sum(source.count for source in sources)
        for _ in track(run.work(sources, segmenter), total=total, what="pictures", quiet=quiet):
            run.written += 1
    if not quiet:
        print(f"{run.written} masks in {out}")
    if run.failures:
        raise typer.Exit(2)


@dataclass
class _Run:
    """Where results go, and what became of the sources."""

    out: Path
    overlay: bool
    confidence: bool
    steady: bool
    flips: bool
    explain: Path | None
    written: int = 0
    failures: int = 0

    def complain(self, error: InputError) -> None:
        self.failures += 1
        print(f"mfuser: {error}", file=sys.stderr)

    def work(self, sources: list[Source], segmenter: Segmenter) -> Iterator[None]:
        """Yields once per mask; a source that cannot be read does not keep the next one from its turn."""
        for source in sources:
            try:
                yield from self._work_on(source, segmenter)
            except InputError as error:
                self.complain(error)

    def _work_on(self, source: Source, segmenter: Segmenter) -> Iterator[None]:
        from mfuser_ros.datasets.video import VideoWriter  # noqa: PLC0415  av, cv2 and torch are imported where used
        from mfuser_ros.evaluation.temporal import FlipCounter  # noqa: PLC0415
        from mfuser_ros.inference import Steady  # noqa: PLC0415

        in_time = bool(source.rate_hz)
        steady = Steady(segmenter) if in_time and self.steady else None
        counter = FlipCounter(segmenter.vocabulary.ids_with_role(["drivable"])) if in_time and self.flips else None
        with ExitStack() as stack:
            film = None
            if source.rate_hz and self.overlay:
                path = self.out / f"{source.name}_overlay.mp4"
                film = stack.enter_context(VideoWriter(path, rate_hz=source.rate_hz))
            for index, frame in enumerate(source.frames()):
                result = steady(frame.picture, time_s=frame.time_s) if steady else segmenter(frame.picture)
                stem = f"{source.name}_{index:06d}" if in_time else str(source.name)
                self._write(stem, result)
                if counter:
                    counter.add(result.picture, result.mask, frame.time_s)
                if self.explain:
                    _write_explanation(self.explain, stem, segmenter, result)
                if film:
                    film.write(result.overlay(), frame.time_s)
                elif self.overlay:
                    _write_picture(self.out / f"{stem}_overlay.jpg", result.overlay())
                yield
        if counter:
            content = json.dumps(counter.flips.summary(), indent=1) + "\n"
            _write_file(self.out / f"{source.name}_flips.json", content.encode())

    def _write(self, stem: str, result: Segmentation) -> None:
        _write_picture(self.out / f"{stem}.png", result.mask)
        if self.confidence:
            _write_picture(self.out / f"{stem}_confidence.png", result.confidence)


def _write_explanation(folder: Path, stem: str, segmenter: Segmenter, result: Segmentation) -> None:
    from mfuser_ros.commands.explanation import features_sheet, queries_sheet  # noqa: PLC0415  cv2 and torch, as above
    from mfuser_ros.inference.explain import explain  # noqa: PLC0415

    explanation = explain(segmenter, result.picture)
    _write_picture(folder / f"{stem}_features.png", features_sheet(result, explanation))
    _write_picture(folder / f"{stem}_queries.png", queries_sheet(result, explanation))


def _write_picture(path: Path, picture: np.ndarray) -> None:
    """Encode by the suffix: uint8 (H, W) grey or (H, W, 3) RGB."""
    import cv2  # noqa: PLC0415

    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    _, encoded = cv2.imencode(path.suffix, stored, settings)
    _write_file(path, encoded.tobytes())


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror}): choose another folder") from error
