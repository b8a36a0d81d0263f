"""Small trees in the layouts of the official releases."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (8, 12)


def photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    """A red picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), (200, 0, 0), np.uint8)).save(path, quality=95)


def grey(path: Path, ids: np.ndarray) -> None:
    """8-bit grey ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def palette(path: Path, ids: np.ndarray) -> None:
    """Ids with a palette whose colours have nothing to do with them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", (ids.shape[1], ids.shape[0]), ids.tobytes())
    image.putpalette([value for number in range(256) for value in (255 - number, number, 7)])
    image.save(path)


def red16(path: Path, ids: np.ndarray) -> None:
    """16-bit colour: the class in red, an instance in green, nothing in blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.zeros((*ids.shape, 3), np.uint16)
    rgb[..., 0], rgb[..., 1] = ids, 4711
    cv2.imwrite(str(path), rgb[..., ::-1])


def colours(path: Path, rgb: np.ndarray) -> None:
    """A colour map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


def row(*ids: int) -> np.ndarray:
    """A label whose first row holds `ids`, the rest the first of them."""
    label = np.full(SIZE, ids[0], np.uint8)
    label[0, : len(ids)] = ids
    return label


def gta5(tmp_path: Path) -> Path:
    """DATA with gta5/: two good pictures and the two known ones whose label has another size."""
    root = tmp_path / "gta5"
    for stem in ("00001", "00002"):
        photo(root / "images" / f"{stem}.png")
        palette(root / "labels" / f"{stem}.png", row(7, 8, 11, 33, 34, 0, 26))
    for stem in ("15188", "17705"):
        photo(root / "images" / f"{stem}.png")
        palette(root / "labels" / f"{stem}.png", np.zeros((8, 10), np.uint8))
    return tmp_path


def synthia(tmp_path: Path) -> Path:
    """The folder RAND_CITYSCAPES itself."""
    root = tmp_path / "RAND_CITYSCAPES"
    photo(root / "RGB" / "0000000.png")
    red16(root / "GT" / "LABELS" / "0000000.png", row(3, 4, 22, 0, 15, 11, 12))
    return root


def cityscapes(tmp_path: Path) -> Path:
    """DATA with cityscapes/: two cities in val, one in train; labelIds, and colours that must not be read."""
    root = tmp_path / "cityscapes"
    for split, city in (("val", "munster"), ("val", "frankfurt"), ("train", "aachen")):
        stem = f"{city}_000000_000019"
        photo(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        folder = root / "gtFine" / split / city
        grey(folder / f"{stem}_gtFine_labelIds.png", row(7, 0, 24, 33, 255))
        colours(folder / f"{stem}_gtFine_color.png", np.zeros((*SIZE, 3)))
        grey(folder / f"{stem}_gtFine_instanceIds.png", row(7))
    return tmp_path


def bdd100k(tmp_path: Path) -> Path:
    root = tmp_path / "bdd100k"
    photo(root / "images" / "10k" / "val" / "7d06fefd-f7be05a6.jpg")
    grey(root / "labels" / "sem_seg" / "masks" / "val" / "7d06fefd-f7be05a6.png", row(0, 18, 255))
    colours(root / "labels" / "sem_seg" / "colormaps" / "val" / "7d06fefd-f7be05a6.png", np.zeros((*SIZE, 3)))
    return tmp_path


def vistas(path: Path, names: tuple[str, ...]) -> None:
    """A list of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"labels": [{"readable": name} for name in names]}), encoding="utf-8")


def mapillary(tmp_path: Path) -> Path:
    """Release 2.0: the same picture with labels of both versions, in ids of their own."""
    root = tmp_path / "mapillary"
    photo(root / "validation" / "images" / "_abc.jpg")
    palette(root / "validation" / "v1.2" / "labels" / "_abc.png", row(1, 0, 2))
    palette(root / "validation" / "v2.0" / "labels" / "_abc.png", row(0, 2, 1))
    vistas(root / "config_v1.2.json", ("Bird", "Lane Marking - General", "Traffic Light"))
    vistas(root / "config_v2.0.json", ("Lane Marking - Text", "Traffic Light - Cyclists", "Bird"))
    return tmp_path


def acdc(tmp_path: Path) -> Path:
    """All four conditions, one picture each, and a reference picture without a label."""
    root = tmp_path / "acdc"
    for train_id, condition in enumerate(("fog", "night", "rain", "snow")):
        name = f"GOPR000{train_id}"
        stem = f"{name}_frame_000247"
        photo(root / "rgb_anon" / condition / "val" / name / f"{stem}_rgb_anon.png")
        grey(root / "gt" / condition / "val" / name / f"{stem}_gt_labelTrainIds.png", row(train_id))
        grey(root / "gt" / condition / "val" / name / f"{stem}_gt_labelIds.png", row(7))
        photo(root / "rgb_anon" / condition / "val_ref" / name / f"{stem}_ref_rgb_anon.png")
    return tmp_path
