"""A benchmark of the train step against PyTorch's, with one batch that stays on the device.

    python benchmarks/step.py [--network=18|50] [--images=64] [--size=32|224] [--dtype=float32]
                              [--steps=2] [--rounds=5] [--only=ours,torch,…]

Four steps take turns in one process, and each of them is compiled before the clock starts:

- ours: the package's train step, with its loss, its online classifier, its metrics and LARS;
- augmented: the same, with flips, colour distortion and blur on the device;
- bare: the encoder's forward and backward pass alone, in JAX;
- torch: the same network, heads and NT-Xent in PyTorch, with momentum, in channels_last; on a GPU
  through torch.compile, with automatic mixed precision where the dtype is bfloat16.

The output is the median time of a step with its spread, that of the processor, which other
processes on the machine change less, and the ratios of the medians of the first. Where PyTorch's
threads wait by turning, OMP_WAIT_POLICY=passive keeps that out of the processor's time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory, too.

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from simclr_jax import mesh as meshes
from simclr_jax.config import default, inputs, parts
from simclr_jax.run import start

CLASSES, TEMPERATURE = 10, 0.5
Steps = Callable[[int], None]  # Runs a number of steps, and waits for the last one.


def config_of(flags: argparse.Namespace, augmented: bool) -> ml_collections.FrozenConfigDict:
    """The config of our step."""
    c = default.get_config()
    last = ("flip", "jitter", "grey", "blur") if augmented else ()
    c.augment.update(ops=("crop", *last), colour_on="device")
    c.data.update(name="synthetic", image_size=flags.size, num_examples=50000, num_classes=CLASSES)
    c.model.update(depth=flags.network, dtype=flags.dtype, head_layers=2, head_dim=128)
    c.loss.temperature = TEMPERATURE
    c.train.batch_size = flags.images
    c.optim.update(lr=0.01, lr_scaling="none")
    return ml_collections.FrozenConfigDict(c)


def images_of(flags: argparse.Namespace) -> np.ndarray:
    """Noise as views (n, 2, S, S, 3), uint8."""
    shape = (flags.images, 2, flags.size, flags.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def labels_of(flags: argparse.Namespace) -> np.ndarray:
    """Labels (n,), int32."""
    return np.arange(flags.images, dtype=np.int32) % CLASSES


def ours(flags: argparse.Namespace, augmented: bool = False) -> Steps:
    """The package's train step."""
    config, mesh = config_of(flags, augmented), meshes.make(jax.devices()[:1])
    built = parts.build(config, mesh)
    batch = {"image": images_of(flags), "label": labels_of(flags)}
    batch = meshes.put(batch | inputs.device_numbers(config, flags.images), mesh)
    state = start.first_state(config, built)

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, metrics = built.step(state, batch)
        jax.block_until_ready((state, metrics))

    return steps


def bare(flags: argparse.Namespace) -> Steps:
    """The forward and the backward pass of the encoder."""
    config, mesh = config_of(flags, False), meshes.make(jax.devices()[:1])
    model = parts.model(config)
    state = start.first_state(config, parts.build(config, mesh))
    images = jnp.asarray(images_of(flags).reshape(-1, flags.size, flags.size, 3), np.float32) / 255

    def loss(params: object, images: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": state.batch_stats}
        outputs, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs.h.astype(jnp.float32).sum(), updated

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=meshes.compiler_options(mesh))

    def steps(count: int) -> None:
        for _ in range(count):
            found = gradient(state.params, images)
        jax.block_until_ready(found)

    return steps


def torch_encoder(flags: argparse.Namespace) -> tuple[Any, int]:
    """A ResNet in PyTorch, and the number of its features."""
    from torch import nn

    deep, small = flags.network == 50, flags.size <= 64

    def block(before: int, width: int, after: int, first: bool, stride: int) -> nn.Module:
        plan = [(before, width, 3, stride), (width, width, 3, 1)]
        if deep:
            plan = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
        layers: list[nn.Module] = []
        for i, o, side, step in plan:
            layers += [nn.Conv2d(i, o, side, step, side // 2, bias=False), nn.BatchNorm2d(o)]
            layers += [nn.ReLU(inplace=True)]
        path = nn.Sequential()
        if first:  # The first block of every group projects, as ours does.
            path = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))
            path.append(nn.BatchNorm2d(after))
        return Block(nn.Sequential(*layers[:-1]), path)

    class Block(nn.Module):
        def __init__(self, body: nn.Module, path: nn.Module):
            super().__init__()
            self.body, self.path = body, path

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.path(x))

    stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers += [] if small else [nn.MaxPool2d(3, 2, 1)]
    before = 64
    for group, blocks in enumerate([3, 4, 6, 3] if deep else [2, 2, 2, 2]):
        for number in range(blocks):
            width = 64 * 2**group
            after = width * (4 if deep else 1)
            stride = 2 if group and not number else 1
            layers.append(block(before, width, after, not number, stride))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def torch_step(flags: argparse.Namespace) -> Steps:
    """The same step in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    encoder, width = torch_encoder(flags)
    head = nn.Sequential(
        nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True),
        nn.Linear(width, 128, bias=False), nn.BatchNorm1d(128),
    )  # fmt: skip
    classifier = nn.Linear(width, CLASSES)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = nn.ModuleList([encoder, head, classifier]).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    views = torch.from_numpy(images_of(flags)).to(device).flatten(0, 1).permute(0, 3, 1, 2)
    labels = torch.from_numpy(labels_of(flags)).long().to(device).repeat_interleave(2)
    half = torch.autocast(device, torch.bfloat16, enabled=flags.dtype == "bfloat16")

    def loss() -> torch.Tensor:
        images = views.float().div(255).contiguous(memory_format=torch.channels_last)
        with half:
            h = encoder(images)
            z = head(h)
            logits = classifier(h.detach())
        z = functional.normalize(z.float())
        compared = z @ z.T / TEMPERATURE
        compared = compared.masked_fill(torch.eye(len(z), dtype=torch.bool, device=device), -1e9)
        positive = torch.arange(len(z), device=device) ^ 1
        contrastive = functional.cross_entropy(compared, positive)
        return contrastive + functional.cross_entropy(logits.float(), labels)

    compiled = torch.compile(loss) if device == "cuda" else loss

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            compiled().backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return steps


def main() -> None:
    """Times the steps by turns and prints their medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=int, choices=(18, 50), default=18)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=2, help="the steps that are timed at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="ours,augmented,bare,torch")
    flags = parser.parse_args()
    makers = {
        "ours": lambda: ours(flags),
        "augmented": lambda: ours(flags, augmented=True),
        "bare": lambda: bare(flags),
        "torch": lambda: torch_step(flags),
    }
    steps, seconds, processor = {}, {}, {}
    for name in flags.only.split(","):
        begin = time.perf_counter()
        steps[name], seconds[name], processor[name] = makers[name](), [], []
        steps[name](2)
        print(f"{name}: compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    for _ in range(flags.rounds):
        for name, run in steps.items():
            begin, used = time.perf_counter(), time.process_time()
            run(flags.steps)
            seconds[name].append((time.perf_counter() - begin) / flags.steps)
            processor[name].append((time.process_time() - used) / flags.steps)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"ResNet-{flags.network}, {flags.size} px, 2 x {flags.images} images, {flags.dtype}, "
          f"{jax.devices()[0].device_kind}")  # fmt: skip
    for name, found in seconds.items():
        print(
            f"{name}: {1e3 * median[name]:.1f} ms a step ({1e3 * min(found):.1f}-"
            f"{1e3 * max(found):.1f}), {1e3 * statistics.median(processor[name]):.1f} ms of the "
            f"processor, {flags.images / median[name]:.0f} images/s"
            + "".join(f", {median[other] / median[name]:.2f} of {other}'s speed"
                      for other in ("bare", "torch") if other in median and other != name)
        )  # fmt: skip


if __name__ == "__main__":
    main()
