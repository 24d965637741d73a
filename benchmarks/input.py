"""A benchmark of the input pipeline: two augmented views of each image, ready for the device.

    python benchmarks/input.py [--images=224] [--seconds=6] [--rounds=3] [--keep_bytes=2147483648]

Four pipelines read the same JPEG or PNG files, in new processes that take turns:

- host: this package's, with the colour distortion on the host;
- device: this package's, with the colour distortion left to the device;
- plain: the usual formulation in tf.data, which decodes the file for each view, draws from
  stateful generators, and applies each operation of TensorFlow by a condition;
- torchvision: its transforms with PIL in a DataLoader with a worker a core, where installed.

Flips, crops and jitter are those of the paper, without the blur, which is the device's everywhere.
--images: '32' (PNG of 32 px), '224' (JPEG of 224 px, 10 kB), '40k' and '110k' (JPEG of 500 x 375 px
of about that many bytes), or '12M' (JPEG of 12 megapixels). With --keep_bytes=0 no images stay in
memory once they are decoded, as small ones of one size do else. The output is the images that each
pipeline makes in a second, in a run's first epoch and later, the ratios of the medians to that of
the plain formulation, and the share of the time that decoding alone would take. Where other work
shares the cores, the ratios of the processor's time vary less; torchvision's is not known, for its
workers are processes of their own.
"""

import argparse
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# The width, the height, the format, the number of files, and the largest bytes of a JPEG.
KINDS = {
    "32": (32, 32, "PNG", 8192, 0),
    "224": (224, 224, "JPEG", 1024, 10_000),
    "40k": (500, 375, "JPEG", 1024, 40_000),
    "110k": (500, 375, "JPEG", 1024, 110_000),
    "12M": (4000, 3000, "JPEG", 32, 3_000_000),
}
PIPELINES = ("host", "device", "plain", "torchvision")


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A picture with large shapes and fine detail, as a photograph has."""
    image = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = rng.uniform(0, 255, (cells * height // width + 1, cells, 3)).astype(np.uint8)
        part = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(part, np.float64) / cells**0.5
    image -= image.min()
    return Image.fromarray((255 * image / image.max()).astype(np.uint8))


def encoded(image: Image.Image, kind: str, size: int) -> bytes:
    """An image as a file of a format, of JPEG of at most `size` bytes."""
    for quality in range(95, 4, -5):
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=quality)
        if kind == "PNG" or buffer.tell() <= size:
            break
    return buffer.getvalue()


def write(folder: Path, kind: str) -> None:
    """Writes the files of a kind: a few pictures, each many times, for files are read anew."""
    width, height, form, count, size = KINDS[kind]
    rng = np.random.default_rng(0)
    few = [encoded(photograph(rng, width, height), form, size) for _ in range(min(count, 64))]
    for number in range(count):
        (folder / f"{number:05}.{form.lower()}").write_bytes(few[number % len(few)])


def batch_of(kind: str) -> int:
    """The number of images of a batch: a quarter of the files, and at most 256."""
    return min(256, KINDS[kind][3] // 4)


def side(kind: str) -> int:
    """The size of the views of a kind of images, in pixels."""
    return 32 if kind == "32" else 224


def ours(folder: Path, kind: str, colour_on: str, keep_bytes: int) -> Iterator[object]:
    """Batches of this package."""
    from simclr_jax.run import environment

    environment.prepare()  # As the commands do, before JAX is imported.
    from simclr_jax.augment import crops
    from simclr_jax.augment.draws import Views
    from simclr_jax.data import folder as folders
    from simclr_jax.data.order import Order
    from simclr_jax.data.pipeline import train_batches
    from simclr_jax.data.readable import Readable

    ops = ("crop", "flip", "jitter", "grey")
    views = Views(
        size=side(kind), ops=(ops, ops), strength=1.0, brightness="v2", crop_area=crops.AREA,
        colour_on=colour_on, blur_on="device",
    )  # fmt: skip
    split = folders.Root(str(folder)).open("train")
    source = Readable(split, on_bad_image="error", keep_bytes=keep_bytes)
    order, rows = Order(len(source), batch_of(kind), seed=0), np.arange(batch_of(kind))
    return train_batches(
        source, order, views, rows=rows, start_step=0, stop_step=10**9, transfer_dtype="uint8"
    )


def plain(folder: Path, kind: str) -> Iterator[object]:
    """Batches of the usual formulation in tf.data."""
    import tensorflow as tf

    def jittered(image: tf.Tensor) -> tf.Tensor:
        def apply(image: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
            factor = tf.random.uniform([], 0.2, 1.8)
            made = tf.switch_case(
                which,
                [
                    lambda: image * factor,
                    lambda: tf.image.random_contrast(image, 0.2, 1.8),
                    lambda: tf.image.random_saturation(image, 0.2, 1.8),
                    lambda: tf.image.random_hue(image, 0.2),
                ],
            )
            return tf.clip_by_value(made, 0.0, 1.0)

        order = tf.random.shuffle(tf.range(4))
        for place in range(4):
            image = apply(image, order[place])
        return image

    def maybe(image: tf.Tensor, change: Callable, probability: float) -> tf.Tensor:
        drawn = tf.random.uniform([]) < probability
        return tf.cond(drawn, lambda: change(image), lambda: image)

    def view(data: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        image = tf.image.convert_image_dtype(image, tf.float32)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]), min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3), area_range=(0.08, 1.0), max_attempts=100,
        )  # fmt: skip
        image = tf.image.crop_to_bounding_box(image, begin[0], begin[1], extent[0], extent[1])
        image = tf.image.resize([image], (side(kind), side(kind)), method="bicubic")[0]
        image = tf.image.random_flip_left_right(image)
        image = maybe(image, jittered, 0.8)
        image = maybe(image, lambda x: tf.tile(tf.image.rgb_to_grayscale(x), [1, 1, 3]), 0.2)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255), tf.uint8)

    def views(path: tf.Tensor) -> tf.Tensor:
        data = tf.io.read_file(path)
        return tf.stack([view(data), view(data)])

    paths = sorted(map(str, folder.iterdir()))
    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = dataset.map(views, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_of(kind), True)
    return iter(dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator())


def torchvision(folder: Path, kind: str) -> Iterator[object]:
    """Batches of torchvision's transforms in PyTorch's DataLoader."""
    import torch
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(side(kind), (0.08, 1.0), interpolation=3),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.PILToTensor(),
        ]
    )
    paths = sorted(folder.iterdir())

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**8

        def __getitem__(self, index: int) -> object:
            with Image.open(paths[index % len(paths)]) as image:
                image = image.convert("RGB")
                return torch.stack([transform(image), transform(image)])

    workers = os.cpu_count() or 1
    return iter(torch.utils.data.DataLoader(Files(), batch_of(kind), num_workers=workers))


def decoding(folder: Path, kind: str) -> Iterator[object]:
    """Batches of images that are decoded, and no more."""
    import tensorflow as tf

    paths = sorted(map(str, folder.iterdir()))
    dataset = tf.data.Dataset.from_tensor_slices(paths).repeat()

    def decoded(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.reduce_max(image[:1, :1])

    dataset = dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_of(kind), True)
    return iter(dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator())


def measure(
    name: str, folder: Path, kind: str, seconds: float, keep_bytes: int
) -> dict[str, float]:
    """Measures a pipeline in this process.

    Returns:
      The images a second in the first epoch and later, and of each the milliseconds of processor
      that an image takes.
    """
    if name in ("host", "device"):
        batches = ours(folder, kind, name, keep_bytes)
    else:
        make = {"plain": lambda: plain(folder, kind), "decode": lambda: decoding(folder, kind)}
        batches = make.get(name, lambda: torchvision(folder, kind))()

    def rate(enough: Callable[[int, float], bool]) -> tuple[float, float]:
        begin, processor, images = time.perf_counter(), time.process_time(), 0
        while not enough(images, time.perf_counter() - begin):
            next(batches)
            images += batch_of(kind)
        processor = time.process_time() - processor
        return images / (time.perf_counter() - begin), 1000 * processor / images

    next(batches)  # What is traced or compiled is so before the clock starts.
    epoch = KINDS[kind][3]
    first = rate(lambda images, passed: images >= epoch - batch_of(kind) or passed > 2 * seconds)
    while name in ("host", "device") and (epoch := epoch - batch_of(kind)) > 0:
        next(batches)
    later = rate(lambda images, passed: passed > seconds)
    return {"first": first[0], "first_ms": first[1], "later": later[0], "later_ms": later[1]}


def main() -> None:
    """Runs the processes and prints the rates and ratios, or with --measure one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", choices=KINDS, default="224")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3, help="the processes of each pipeline")
    parser.add_argument("--keep_bytes", type=int, default=2**31)
    parser.add_argument("--measure", choices=[*PIPELINES, "decode"])
    parser.add_argument("--folder", type=Path)
    flags = parser.parse_args()
    if flags.measure:
        options = flags.folder, flags.images, flags.seconds, flags.keep_bytes
        print(json.dumps(measure(flags.measure, *options)))
        return
    names = [*PIPELINES, "decode"]
    if importlib.util.find_spec("torchvision") is None:
        names.remove("torchvision")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), flags.images)
        for _ in range(flags.rounds):
            for name in names:
                child = [sys.executable, __file__, *sys.argv[1:], f"--measure={name}"]
                output = subprocess.check_output([*child, f"--folder={folder}"])
                found[name].append(json.loads(output.splitlines()[-1]))
                print(name, {k: round(v, 2) for k, v in found[name][-1].items()}, flush=True)
    for when in ("first", "later"):
        rates, taken = (
            {name: statistics.median(run[key] for run in found[name]) for name in names}
            for key in (when, f"{when}_ms")
        )
        for name in names[:-1]:
            spread = [round(run[when]) for run in found[name]]
            print(
                f"{when}: {name} {rates[name]:.0f} images/s {min(spread)}-{max(spread)}, "
                f"{rates[name] / rates['plain']:.2f} of plain; processor {taken[name]:.2f} ms an "
                f"image, {taken['plain'] / taken[name]:.2f} of plain, of which decoding alone "
                f"would take {taken['decode'] / taken[name]:.0%}"
            )


if __name__ == "__main__":
    main()
