#!/usr/bin/env python3
"""Makes the demo's data set: a balanced subset of Fashion-MNIST as PNG files in class folders.

    make_fashion_subset.py IDX_FOLDER OUT.tar.gz

IDX_FOLDER holds Fashion-MNIST's four idx .gz files; make_fashion_subset.sh fetches them. The
subset is the first 250 training and the first 50 test images of each of the 10 classes, in file
order. The archive holds LICENSE, README, train/CLASS/NNNNN.png and val/CLASS/NNNNN.png, where
NNNNN is the image's index in its idx file.

Prints the archive's size and SHA-256, and the top-1 accuracy of one nearest neighbour on raw
pixels: a figure that any trained network should beat. The same versions of Python, zlib and
Pillow give the same bytes. Needs numpy and Pillow.
"""
import argparse
import gzip
import hashlib
import io
import pathlib
import struct
import tarfile

import numpy as np
from PIL import Image

# Folder names in the order of Fashion-MNIST's labels, 0 to 9.
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]
# Folder in the archive: (prefix of the idx files, images taken of each class).
SPLITS = {"train": ("train", 250), "val": ("t10k", 50)}
ARCHIVE_BYTES_MAX = 3_000_000

README = """\
A balanced subset of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist): of each class the first 250
training images (train/) and the first 50 test images (val/), named by their
index in the original files. Made by make_fashion_subset.py. MIT licence, see
LICENSE.
"""

LICENSE = """\
The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of
this software and associated documentation files (the "Software"), to deal in
the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read_idx(path):
    """The array of bytes in one gzipped idx file, in the shape that its header gives."""
    raw = gzip.decompress(path.read_bytes())
    magic, = struct.unpack_from(">I", raw)
    kind, dimensions = magic >> 8, magic & 0xFF
    if kind != 0x08:
        raise ValueError(f"{path}: not an idx file of bytes (its magic number is {magic:#010x})")
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def first_of_each_class(labels, count):
    """Indices of the first `count` items of each class, in file order."""
    picked = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASSES))]
    for name, found in zip(CLASSES, picked):
        if len(found) < count:
            raise ValueError(f"class {name} has only {len(found)} images; {count} are needed")
    return np.sort(np.concatenate(picked))


def load_split(folder, split):
    """(indices [n], images [n, 28, 28], labels [n]) of the subset of one split."""
    prefix, count = SPLITS[split]
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    indices = first_of_each_class(labels, count)
    return indices, images[indices], labels[indices]


def png(image):
    """The bytes of an 8-bit greyscale PNG file of `image` [h, w]."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=True)
    return out.getvalue()


def archive_entries(splits):
    """{name in the archive: bytes}."""
    entries = {"LICENSE": LICENSE.encode(), "README": README.encode()}
    for split, (indices, images, labels) in splits.items():
        for index, image, label in zip(indices, images, labels):
            entries[f"{split}/{CLASSES[label]}/{index:05d}.png"] = png(image)
    return entries


def tar_gz(entries):
    """A .tar.gz of `entries` and nothing else: names sorted, times, owners and modes fixed."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(entries):
                info = tarfile.TarInfo(name)  # its defaults: mtime 0, uid and gid 0, mode 0644
                info.size = len(entries[name])
                tar.addfile(info, io.BytesIO(entries[name]))
    return out.getvalue()


def nearest_neighbour_top1(train, val):
    """The share of val images whose nearest train image, by L2 on raw pixels, is of their class."""
    (_, train_images, train_labels), (_, val_images, val_labels) = train, val
    # Sums of squares of bytes are small integers, so float64 holds every distance exactly.
    a = val_images.reshape(len(val_images), -1).astype(np.float64)
    b = train_images.reshape(len(train_images), -1).astype(np.float64)
    distances = (a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1)[None, :]
    return float((train_labels[distances.argmin(1)] == val_labels).mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("idx_folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()

    splits = {split: load_split(args.idx_folder, split) for split in SPLITS}
    archive = tar_gz(archive_entries(splits))
    if len(archive) > ARCHIVE_BYTES_MAX:
        raise SystemExit(f"the archive has {len(archive)} bytes, over {ARCHIVE_BYTES_MAX}")
    args.out.write_bytes(archive)

    counts = ", ".join(f"{len(images)} {split}" for split, (_, images, _) in splits.items())
    print(f"{args.out}: {len(archive)} bytes, {counts} images, {len(CLASSES)} classes")
    print(f"sha256 {hashlib.sha256(archive).hexdigest()}")
    print(f"1-nearest-neighbour top-1 {nearest_neighbour_top1(splits['train'], splits['val']):.3f}")


if __name__ == "__main__":
    main()
