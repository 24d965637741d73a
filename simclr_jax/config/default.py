"""Every key with its unit; the other configs start from these and change what they are about."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults: the paper's recipe where it has one (arXiv 2002.05709, section 2.2)."""
    c = ConfigDict()
    c.seed = 0  # of the initialisation, the order and the augmentations; below 2³¹

    c.data = data = ConfigDict()
    data.name = placeholder(str)  # 'digits', 'folder', or a TFDS name such as 'cifar10'
    data.dir = placeholder(str)  # the image folder, or TFDS's data_dir (None: TFDS_DATA_DIR)
    data.train_split = "train"  # a TFDS split or slice; of a folder, a subfolder
    data.eval_split = placeholder(str)  # None: test, else val or validation, else held_out
    data.held_out = 0.1  # fraction of the training images held out where there is no such split
    data.image_size = 224  # pixels, of the square views
    data.num_examples = placeholder(int)  # in train_split; None: counted when it is opened
    data.num_classes = placeholder(int)  # 0: unlabelled; None: as the data say
    data.cache_bytes = 2 * 2**30  # TFRecord files up to this size together are held in memory
    data.shuffle_block = 1  # neighbouring records kept together, for sequential storage; 1: exact
    data.shuffle_window = 16  # blocks among whose records one epoch shuffles (shuffle_block > 1)
    data.transfer_dtype = "uint8"  # uint8 (rounded to 1/255) | float32 (exact, 4x the bytes)
    data.on_bad_image = "replace"  # replace (by the next readable one) | error

    c.augment = augment = ConfigDict()
    augment.ops = ("crop", "flip", "jitter", "grey", "blur")  # any of these; applied in this order
    augment.strength = 1.0  # of jitter; 0 turns jitter and grey off
    augment.brightness = "v2"  # v2 (multiplies) | v1 (adds)
    augment.crop_area = (0.08, 1.0)  # smallest and largest fraction of the image
    augment.blur_on = "device"  # device (in the train step) | host (in tf.data)

    c.model = model = ConfigDict()
    model.depth = 50  # 18 | 34 | 50 | 101 | 152 | 200
    model.width = 1.0  # times 64 filters; fractions make small networks
    model.sk_ratio = 0.0  # selective kernels, SimCLRv2: 0.0625; 0: none
    model.se_ratio = 0.0  # squeeze-excite; 0: none
    model.stem = "auto"  # small (3x3) | imagenet (7x7 and pooling) | auto (small up to 32 px)
    model.dtype = "float32"  # of the convolutions: float32 | bfloat16
    model.remat = "none"  # computed again, not kept, for gradients: none | block | stage
    model.head = "nonlinear"  # none | linear | nonlinear
    model.head_layers = 2  # of a nonlinear head; SimCLRv2: 3
    model.head_dim = 128  # width of the projection

    c.loss = loss = ConfigDict()
    loss.name = "nt_xent"
    loss.temperature = 0.1
    loss.normalize = True  # compare cosine similarities
    loss.block_rows = placeholder(int)  # of 2B, at once on a device; None: what fits in 128 MiB

    c.optim = optim = ConfigDict()
    optim.name = "lars"  # lars | momentum | adam | adamw
    optim.lr = 0.3  # scaled by lr_scaling to the peak
    optim.lr_scaling = "linear"  # linear (lr·B/256) | sqrt (lr·√B) | none
    optim.weight_decay = 1e-6
    optim.warmup_epochs = 10.0

    c.train = train = ConfigDict()
    train.batch_size = 4096  # source images, over all devices
    train.epochs = 100.0
    train.steps = placeholder(int)  # overrides epochs; the schedule then ends at this step
    train.microbatches = 1  # divides the batch to save memory; gradients stay the whole batch's
    train.on_nonfinite = "stop"  # an update that is not finite: stop | skip
    train.max_skipped_updates = 10  # before a run that skips stops after all
    train.microbatch_norm = "per_microbatch"  # by own statistics | running (by moving averages)

    c.eval = evaluation = ConfigDict()
    evaluation.every_epochs = placeholder(float)  # None: every_steps, else only at the end
    evaluation.every_steps = placeholder(int)  # overrides every_epochs
    evaluation.batch_size = placeholder(int)  # images over all devices; None: train.batch_size

    c.checkpoint = checkpoint = ConfigDict()
    checkpoint.every_epochs = placeholder(float)  # None, and no every_steps: only at the end
    checkpoint.every_epochs = 1.0
    checkpoint.every_steps = placeholder(int)  # overrides every_epochs
    checkpoint.keep = 3  # latest ones; the best evaluated one is kept besides

    c.log = log = ConfigDict()
    log.every_steps = 50
    log.tensorboard = True
    return c


def arguments(text: str | None, **defaults: Any) -> dict[str, Any]:
    """Parses a config file's argument string, such as 'depth=50,width=2', by its defaults' types.

    Raises:
      ValueError: an unknown name, or a value of another type.
    """
    values = dict(defaults)
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.partition("=")
        if name not in defaults:
            raise ValueError(f"{part!r}: known arguments are {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            values[name] = kind(value)
        except ValueError:
            raise ValueError(f"{part!r}: {name} takes {kind.__name__}") from None
    return values
