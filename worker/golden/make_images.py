#!/usr/bin/env python3
"""Makes the image files and the numbers that the tests of worker/src/data compare with.

    pip install pillow==13.0.0 numpy
    python3 worker/golden/make_images.py          # writes into its own folder

images.json: what Pillow and numpy (in float64) make of one synthetic picture. cmyk.jpg,
progressive.jpg and the exif-N.jpg: files that the `image` crate cannot write.
"""
import json
import pathlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent


def picture(height, width):
    """Coarse blocks with some texture: the tests make the same in Rust."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((y // 5 * 37 + x // 4 * 23 + c * 61 + x * y % 7 * 5) % 256).astype(np.uint8)


def canonical(pixels, short_side):
    picture = Image.fromarray(pixels)
    size = [int(side * short_side / min(picture.size) + 0.5) for side in picture.size]
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def resize(pixels, size):
    """In float: Pillow does that for one channel at a time."""
    channels = [Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(3)]
    resized = [channel.resize((size, size), Image.Resampling.BILINEAR) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], axis=2).astype(np.float64)


def standardise(values):
    return (values - values.mean()) / max(values.std(), 1 / np.sqrt(values.size))


def training_image(pixels, top, left, side, size, mirror, brightness, contrast):
    values = resize(pixels[top:top + side, left:left + side], size)
    if mirror:
        values = values[:, ::-1]
    values = values + brightness
    mean = values.mean((0, 1))
    return standardise((values - mean) * contrast + mean)


def flat(values, digits=5):
    return [round(float(value), digits) for value in np.asarray(values).ravel()]


def main():
    pixels = picture(31, 43)
    training = dict(top=3, left=5, side=26, size=9, mirror=True, brightness=-17.25, contrast=0.625)
    middle = pixels[:, 6:37]
    numbers = {
        "canonical": [
            {"short_side": short, "width": c.shape[1], "height": c.shape[0],
             "pixels": c.ravel().tolist()}
            for short in (12, 31, 40) for c in [canonical(pixels, short)]
        ],
        "resized": [
            {"top": top, "left": left, "side": side, "size": size,
             "values": flat(resize(pixels[top:top + side, left:left + side], size))}
            for top, left, side, size in ((0, 0, 31, 7), (4, 11, 20, 20), (2, 30, 13, 17))
        ],
        "evaluation": {"size": 10, "values": flat(standardise(resize(middle, 10)))},
        "training": {**training, "values": flat(training_image(pixels, **training))},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items()]
    (HERE / "images.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")

    blocks = np.zeros((16, 32, 3), np.uint8)
    blocks[:, :16], blocks[:, 16:] = (200, 40, 90), (20, 180, 240)
    Image.fromarray(blocks).convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
    Image.fromarray(picture(64, 96)).save(HERE / "progressive.jpg", progressive=True, quality=80)
    # A viewer shows red on the upper left, green right of it, blue below, black on the lower right.
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:] = (255, 0, 0), (0, 255, 0)
    upright[8:, :16] = (0, 0, 255)
    turns = Image.Transpose
    stored = {
        1: None, 2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE, 6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270,
    }
    for orientation, turn in stored.items():
        image = Image.fromarray(upright)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = image if turn is None else image.transpose(turn)
        image.save(HERE / f"exif-{orientation}.jpg", quality=95, exif=exif, subsampling=0)


if __name__ == "__main__":
    main()
