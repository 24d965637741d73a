"""The sizes of a run for the time that it may take: views, network, batch and number of images.

All of it is arithmetic on what was counted and measured before; `choice` counts and measures. The
numbers that are no arithmetic, `SEEN` and the ladders, are guesses; docs/images.md has what a few
runs with them reached.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simclr_jax.models import resnet

SEEN = 50_000  # The number of images that a run sees at least with a network of `UNIT` work.
UNIT = 128.0  # The work of ResNet-18 of a quarter of the width at 64 px, in the unit of `work`.
SMALL = 32  # The largest views, in pixels, that have the ladder of small images.
MOST_EPOCHS = 1000.0  # The longest run, in epochs: the paper's longest.
BATCHES = (32, 1024)  # The smallest and the largest batch that is chosen.
_VALUES = 3  # The values kept for each output of a convolution: its own, batch norm's and ReLU's.


class Network(NamedTuple):
    """A network and its input.

    Attributes:
      image_size: The side of the views in pixels.
      depth: The number of layers of the ResNet.
      width: The multiple of its filters.
      stem: Its stem, one of `resnet.STEMS`.
    """

    image_size: int
    depth: int
    width: float
    stem: str = "auto"

    def __str__(self) -> str:
        """The network in words.

        >>> str(Network(64, 18, 0.5, "imagenet")), str(Network(32, 18, 0.5, "imagenet"))
        ('ResNet-18 x0.5 at 64 px', 'ResNet-18 x0.5 at 32 px, imagenet stem')
        """
        usual = resnet.stem_for(self.stem, self.image_size) == resnet.stem_for(
            "auto", self.image_size
        )
        stem = "" if usual else f", {self.stem} stem"
        return f"ResNet-{self.depth} x{self.width:g} at {self.image_size} px{stem}"

    @property
    def stride(self) -> int:
        """How many times smaller the sides are after the stem."""
        return 4 if resnet.stem_for(self.stem, self.image_size) == "imagenet" else 1


# From small to large. Each step multiplies the work by 1.6 to 4. The first of both was better than
# smaller, larger and finer ones in the same few minutes.
_PHOTOGRAPHS = [
    Network(64, 18, 0.5),
    Network(96, 18, 0.5),
    Network(96, 18, 1.0),
    Network(128, 18, 1.0),
    Network(128, 50, 1.0),
    Network(160, 50, 1.0),
    Network(224, 50, 1.0),
]
_SMALL = [
    Network(SMALL, 18, 0.5, "imagenet"),
    Network(SMALL, 18, 1.0, "imagenet"),
    Network(SMALL, 18, 0.5),
    Network(SMALL, 18, 1.0),
    Network(SMALL, 50, 1.0),
]
# Views of fewer pixels are too small for the imagenet stem.
_SMALLER = [
    *(Network(SMALL, 18, width) for width in (0.25, 0.5, 1.0)),
    Network(SMALL, 50, 1.0),
]


class Cost(NamedTuple):
    """The seconds that an image takes in a training.

    Attributes:
      step: Those of the train step alone, on all devices together.
      input: Those of the input alone, of images that are known.
      together: Those of both at a time, in the training loop.
      first: The same in the first epoch, in which each image is checked.
      shared: Whether both are computed by the same processor, so that they add up.
    """

    step: float
    input: float
    together: float
    first: float
    shared: bool

    def __str__(self) -> str:
        """The cost in words.

        >>> str(Cost(0.0021, 0.0005, 0.0026, 0.0028, shared=True))
        '2.6 ms each (the step alone 2.1, the input alone 0.5)'
        """
        together, step, made = (f"{1e3 * x:.3g}" for x in (self.together, self.step, self.input))
        return f"{together} ms each (the step alone {step}, the input alone {made})"

    @property
    def apart(self) -> float:
        """What both take at a time by what each takes alone."""
        return self.step + self.input if self.shared else max(self.step, self.input)

    def seconds(self, seen: float, images: float) -> float:
        """The seconds of a training.

        Args:
          seen: The number of images that it sees, those of all epochs.
          images: The number of images of an epoch.
        """
        first = min(seen, images)
        return first * self.first + (seen - first) * self.together

    def seen(self, seconds: float, images: float) -> float:
        """The number of images that a training of some seconds sees; see `seconds`."""
        seconds = max(seconds, 0.0)
        if seconds <= images * self.first:
            return seconds / self.first
        return images + (seconds - images * self.first) / self.together


class Length(NamedTuple):
    """A network, and how long it is trained.

    Attributes:
      network: The network and its input.
      batch_size: The number of images of a batch.
      seen: The number of images that the run sees, those of all epochs.
      evaluations: The number of evaluations.
      training: The seconds of training.
      evaluating: The seconds of all evaluations.
    """

    network: Network
    batch_size: int
    seen: float
    evaluations: int = 1
    training: float = 0.0
    evaluating: float = 0.0


def work(network: Network) -> float:
    """The work of an encoder for an image, in the unit of a block of 64 filters for a pixel.

    All blocks of a ResNet take about the same work: where the side of their input is halved, the
    filters are doubled.

    >>> work(Network(64, 18, 0.25)) == UNIT
    True

    Args:
      network: The network.
    """
    side = network.image_size / network.stride
    return sum(resnet.BLOCKS[network.depth][1]) * (network.width * side) ** 2


def ladder(
    side: int,
    *,
    image_size: int | None = None,
    depth: int | None = None,
    width: float | None = None,
    stem: str | None = None,
) -> list[Network]:
    """The networks to choose from, from small to large, each once.

    >>> [network.image_size for network in ladder(100, depth=18)]
    [64, 96, 96, 100]

    Args:
      side: The shorter side of the images, beyond which views would only be enlarged.
      image_size: The side of the views, if it is given.
      depth: The number of layers, if it is given.
      width: The multiple of the filters, if it is given.
      stem: The stem, if it is given.
    """
    size = image_size or side
    of_size = _PHOTOGRAPHS if size > SMALL else _SMALLER
    if size == SMALL and stem in (None, "imagenet"):
        of_size = _SMALL
    found = [
        Network(
            image_size or max(8, min(network.image_size, side)),
            depth or network.depth,
            width or network.width,
            stem or network.stem,
        )
        for network in of_size
    ]
    return list(dict.fromkeys(found))


def needed(network: Network) -> float:
    """The number of images that a run has to see for a network to be worth its work.

    It grows as the root of the work, so that of more time two thirds, in logarithms, go to a larger
    network and a third to a longer run.

    >>> needed(Network(64, 18, 0.25)), needed(Network(64, 18, 0.5))
    (50000.0, 100000.0)
    """
    return SEEN * math.sqrt(work(network) / UNIT)


def predicted(network: Network, measured: Mapping[Network, Cost]) -> Cost:
    """The cost of an image with a network, from that of the measured one with the nearest work.

    Of an image's input a half is taken to grow with the area of the views; the other half is
    reading and decoding.

    Args:
      network: The network.
      measured: The costs that were measured, at least one.
    """
    if network in measured:
        return measured[network]
    own = work(network)
    nearest = min(measured, key=lambda other: abs(math.log(work(other) / own)))
    known = measured[nearest]
    area = (network.image_size / nearest.image_size) ** 2
    found = known._replace(
        step=known.step * own / work(nearest), input=known.input * (0.5 + 0.5 * area)
    )
    together = known.together * found.apart / known.apart
    return found._replace(together=together, first=together + known.first - known.together)


def largest(
    networks: Sequence[Network],
    costs: Sequence[Cost],
    seconds: Sequence[float],
    *,
    images: float,
    seen: float | None = None,
) -> Network | None:
    """The largest network that is worth its work in the time.

    Args:
      networks: The networks, from small to large.
      costs: The cost of an image with each.
      seconds: The seconds of training with each.
      images: The number of training images.
      seen: The number of images that the run sees, if its length is given; None: as many as the
        time allows, and at least those that are `needed`, but with the first network.

    Returns:
      The network. None: a run of the given length takes longer with each of them.
    """
    each = zip(networks, costs, seconds, strict=True)
    for place, (network, cost, has) in reversed(list(enumerate(each))):
        wanted = seen or (needed(network) if place else 0.0)
        if cost.seconds(wanted, images) <= has:
            return network
    return None


def batch_size(seen: float, *, images: int, unit: int, most: float = math.inf) -> int:
    """The batch of a run: about a quarter of the root of the images it sees, a power of two.

    So of more images a half, in logarithms, makes larger batches and a half more updates.

    >>> batch_size(100_000, images=5_000, unit=1), batch_size(10_000_000, images=10**6, unit=8)
    (64, 1024)
    >>> batch_size(100_000, images=180, unit=1), batch_size(100_000, images=5_000, unit=6)
    (32, 60)

    Args:
      seen: The number of images that the run sees, those of all epochs.
      images: The number of training images, of which a batch has a quarter at most.
      unit: What divides the batch: the number of devices, and of microbatches.
      most: The largest batch that fits in memory.
    """
    smallest, most_chosen = BATCHES
    wanted = min(max(math.sqrt(max(seen, 1.0)) / 4, smallest), most_chosen)
    limit = max(2.0, min(most, images / 4))
    power = min(round(math.log2(wanted)), math.floor(math.log2(limit)))
    return max(2**power // unit, -(-2 // unit)) * unit


def most_in_memory(network: Network, *, memory: float, value_bytes: int) -> int:
    """The largest batch of two views of which half of the memory holds what a step keeps.

    Args:
      network: The network.
      memory: The bytes of memory of all devices together.
      value_bytes: The bytes of a value: 4 of float32, 2 of bfloat16.
    """
    block, counts = resnet.BLOCKS[network.depth]
    convolutions = 6 if block.expansion == 4 else 2  # A block's outputs, in units of its filters.
    outputs = sum(convolutions * count / 2**stage for stage, count in enumerate(counts))
    area = (network.image_size / network.stride) ** 2
    outputs = 64 * network.width * area * (outputs + (4 if network.stride == 4 else 1))
    return int(memory / 2 / (2 * _VALUES * value_bytes * outputs))


def evaluation_seconds(cost: Cost, *, images: int, voters: int, labelled: bool) -> float:
    """The seconds of an evaluation during the training.

    Each of an image's two views passes the network forward, a third of a step. With labels the
    image itself does, and so do the images that vote, a sixth of a step each.

    Args:
      cost: The cost of an image in training.
      images: The number of evaluation images.
      voters: The number of training images that vote.
      labelled: Whether there are labels.
    """
    alone = images + voters if labelled else 0
    step = cost.step * (images / 3 + alone / 6)
    return cost._replace(step=step, input=cost.input * (images + alone / 2)).apart


def evaluations(cost: Cost, seconds: float, *, images: float, every: float, each: float) -> int:
    """The number of evaluations with which a training sees the most images in the time, at least 1.

    The last one is at the end, so that a run of at most n intervals has n of them.

    >>> cost = Cost(0.1, 0.1, 0.1, 0.1, shared=False)
    >>> [evaluations(cost, left, images=9, every=100, each=5) for left in (12, 30, 34, 36)]
    [1, 2, 2, 3]

    Args:
      cost: The cost of an image in training.
      seconds: The seconds of training and evaluating.
      images: The number of images of an epoch.
      every: The number of images that are seen between two evaluations.
      each: The seconds of an evaluation.
    """
    part = each / every  # An image's part of the time of the next evaluation.
    with_it = cost._replace(first=cost.first + part, together=cost.together + part)
    whole = int(with_it.seen(seconds, images) / every)
    begun = cost.seen(seconds - (whole + 1) * each, images) > whole * every
    return max(1, whole + begun)


def warmup(updates: float) -> float:
    """The updates of the warm-up: a twentieth of all, or 100 of a short run, at most a tenth.

    >>> warmup(4000), warmup(1500), warmup(200)
    (200.0, 100.0, 20.0)
    """
    return updates * min(max(0.05, 100 / max(updates, 1.0)), 0.1)
