"""Every key with its unit; the other configs start from these and change what they are about."""

from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults: the paper's recipe where it has one (arXiv 2002.05709, section 2.2)."""
    c = ConfigDict()
    c.seed = 0  # of the initialisation, the order and the augmentations; below 2³¹
    c.data = _data()
    c.augment = _augment()
    c.model = _model()
    c.loss = _loss()
    c.optim = _optim()
    c.train = _train()
    c.eval = _eval()
    c.checkpoint = _checkpoint()
    c.log = _log()
    return c


def _data() -> ConfigDict:
    c = ConfigDict()
    c.name = placeholder(str)  # 'digits', 'folder', or a TFDS name such as 'cifar10'
    c.dir = placeholder(str)  # the image folder, or TFDS's data_dir (None: TFDS_DATA_DIR)
    c.train_split = "train"  # a TFDS split or slice; of a folder, a subfolder
    c.eval_split = placeholder(str)  # None: test, else val or validation, else held_out
    c.held_out = 0.1  # fraction of the training images held out where there is no such split
    c.image_size = 224  # pixels, of the square views
    c.num_examples = placeholder(int)  # in train_split; None: counted when it is opened
    c.num_classes = placeholder(int)  # 0: unlabelled; None: as the data say
    c.cache_bytes = 2 * 2**30  # TFRecord files up to this size together are held in memory
    c.shuffle_block = 1  # neighbouring records kept together, for sequential storage; 1: exact
    c.shuffle_window = 16  # blocks among whose records one epoch shuffles (shuffle_block > 1)
    c.transfer_dtype = "uint8"  # uint8 (rounded to 1/255) | float32 (exact, 4x the bytes)
    c.on_bad_image = "replace"  # replace (by the next readable one) | error
    return c


def _augment() -> ConfigDict:
    c = ConfigDict()
    c.ops = ("crop", "flip", "jitter", "grey", "blur")  # any of these; applied in this order
    c.strength = 1.0  # of jitter; 0 turns jitter and grey off
    c.brightness = "v2"  # v2 (multiplies) | v1 (adds)
    c.crop_area = (0.08, 1.0)  # smallest and largest fraction of the image
    c.blur_on = "device"  # device (in the train step) | host (in tf.data)
    return c


def _model() -> ConfigDict:
    c = ConfigDict()
    c.depth = 50  # 18 | 34 | 50 | 101 | 152 | 200
    c.width = 1.0  # times 64 filters; fractions make small networks
    c.sk_ratio = 0.0  # selective kernels, SimCLRv2: 0.0625; 0: none
    c.se_ratio = 0.0  # squeeze-excite; 0: none
    c.stem = "auto"  # small (3x3) | imagenet (7x7 and pooling) | auto (small up to 32 px)
    c.dtype = "float32"  # of the convolutions: float32 | bfloat16
    c.remat = "none"  # computed again, not kept, for gradients: none | block | stage
    c.head = "nonlinear"  # none | linear | nonlinear
    c.head_layers = 2  # of a nonlinear head; SimCLRv2: 3
    c.head_dim = 128  # width of the projection
    return c


def _loss() -> ConfigDict:
    c = ConfigDict()
    c.name = "nt_xent"
    c.temperature = 0.1
    c.normalize = True  # compare cosine similarities
    c.block_rows = placeholder(int)  # of 2B, at once on a device; None: what fits in 128 MiB
    return c


def _optim() -> ConfigDict:
    c = ConfigDict()
    c.name = "lars"  # lars | momentum | adam | adamw
    c.lr = 0.3  # scaled by lr_scaling to the peak
    c.lr_scaling = "linear"  # linear (lr·B/256) | sqrt (lr·√B) | none
    c.weight_decay = 1e-6
    c.warmup_epochs = 10.0
    return c


def _train() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 4096  # source images, over all devices
    c.epochs = 100.0
    c.steps = placeholder(int)  # overrides epochs; the schedule then ends at this step
    c.microbatches = 1  # divides the batch to save memory; gradients stay the whole batch's
    c.on_nonfinite = "stop"  # an update that is not finite: stop | skip
    c.max_skipped_updates = 10  # before a run that skips stops after all
    c.microbatch_norm = "per_microbatch"  # by own statistics | running (by moving averages)
    return c


def _eval() -> ConfigDict:
    c = ConfigDict()
    c.every_epochs = placeholder(float)  # None: every_steps, else only at the end
    c.every_steps = placeholder(int)  # overrides every_epochs
    c.batch_size = placeholder(int)  # images over all devices; None: train.batch_size
    return c


def _checkpoint() -> ConfigDict:
    c = ConfigDict()
    c.every_epochs = FieldReference(1.0)  # None, and no every_steps: only at the end
    c.every_steps = placeholder(int)  # overrides every_epochs
    c.keep = 3  # latest ones; the best evaluated one is kept besides
    return c


def _log() -> ConfigDict:
    c = ConfigDict()
    c.every_steps = 50
    c.tensorboard = True
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
