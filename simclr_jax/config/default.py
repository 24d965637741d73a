"""Every key of a training run: its default, its unit and what it may be."""

from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults: the paper's default setting (arXiv 2002.05709, section 2.3), if it has one."""
    c = ConfigDict()
    c.seed = 0  # The seed of the initialisation, the order and the augmentations, below 2³¹.
    c.data = _data()
    c.augment = _augment()
    c.objective = _objective()
    c.init = _init()
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
    c.name = placeholder(str)  # The dataset: 'digits', 'folder', or a TFDS name such as 'cifar10'.
    c.dir = placeholder(str)  # The image folder, or the data_dir of TFDS; None: TFDS_DATA_DIR.
    c.train_split = "train"  # The training split: a TFDS split or slice; of a folder, a subfolder.
    # The evaluation split; None: test, else val or validation, else held-out training images.
    c.eval_split = placeholder(str)
    # The feature of a TFDS dataset that is the image; None: that of its supervised_keys, else
    # 'image', else the only one.
    c.image_key = placeholder(str)
    # The feature that is the label; None: found in the same way. One of several labels an image, as
    # 'labels' of voc, has to be named.
    c.label_key = placeholder(str)
    # The fraction of the training images to hold out where there is no evaluation split, above 0
    # and below 1.
    c.held_out = 0.1
    # The fraction of each class's labels that are seen, above 0 to 1, drawn at random; None: all.
    # Of this key and the next two, one at most is given.
    c.label_fraction = placeholder(float)
    # The number of labels of each class that are seen, at least 1, drawn at random; None: all.
    c.labels_per_class = placeholder(int)
    # The file with the names of the images whose labels are seen, one a line; None: all.
    c.label_list = placeholder(str)
    c.label_seed = 0  # The seed of the draw of labels, below 2³¹, whatever the seed of the run.
    c.image_size = 224  # The side of the square views in pixels, 8 to 4096.
    # The number of training images, for simclr-plan, which opens no data; None: a run counts them.
    c.num_examples = placeholder(int)
    # The number of classes, for simclr-plan; 0: the images are used without labels; None: that of
    # the data.
    c.num_classes = placeholder(int)
    # The size in bytes up to which all TFRecord files of a split together are kept in memory, and
    # up to which the pixels of all its images are, where these are of one size of at most 64 x 64.
    c.cache_bytes = 2 * 2**30
    # The folder where the positions of the records in TFRecord files are kept, on a disk or in a
    # bucket, once they are found; None: WORKDIR/tfrecord_index in a bucket, else the user's cache.
    c.index_dir = placeholder(str)
    # The number of neighbouring records that stay near each other in the order of an epoch, for
    # storage that is fast in sequence, 1 to 2²⁰; 1: an exact shuffle.
    c.shuffle_block = 1
    # The number of blocks among whose records an epoch shuffles, 1 to 2²⁰; unused if the blocks
    # have one record.
    c.shuffle_window = 16
    # The dtype in which images go to the devices: 'uint8' (rounded to 1/255) or 'float32' (exact,
    # four times the bytes).
    c.transfer_dtype = "uint8"
    # The number of channels of the images, 1 to 512. 3 is for red, green and blue, and grey images
    # are repeated to it. With others there is no greyscale, and no jitter of hue and saturation.
    c.channels = 3
    # The values that are black and white in images of more than 8 bits and in .npy files, such as
    # (0, 4095) for 12 bits; None: (0, 65535), or (0, 1) for floating-point numbers.
    c.value_range = placeholder(tuple)
    # The number of augmented views of an image in its batch, at least 1: 2 for the contrastive
    # objective; None: 2 for the contrastive objective, 1 for the others.
    c.views = placeholder(int)
    # What an unreadable image does: 'replace' (the next readable one takes its place) or 'error'.
    c.on_bad_image = "replace"
    return c


def _augment() -> ConfigDict:
    c = ConfigDict()
    # The augmentations of a view in their order, each at most once: crop, flip, jitter, grey, blur,
    # cutout, rotate, noise, sobel, equalize, solarize, motion_blur. Unless a crop is the first one,
    # the full image is resized before it. shared_crop, only as the first one, is a crop that all
    # views of an image share.
    # Views with different ones have a list each: (("crop", "flip"), ("crop", "jitter")).
    c.ops = ("crop", "flip", "jitter", "grey", "blur")
    c.strength = 1.0  # The strength of the colour jitter, 0 to 5; 0 turns jitter and grey off.
    c.brightness = "v2"  # How the jitter changes the brightness: 'v2' (multiplies) or 'v1' (adds).
    # The smallest and the largest area of a crop as fractions of the image's area, above 0 to 1.
    c.crop_area = (0.08, 1.0)
    # The policy whose two operations each view has besides, after the crop and the flip that its
    # list begins with: 'autoaugment' or 'randaugment'; None: no policy.
    c.policy = placeholder(str)
    # Where flips, jitter and greyscale at the end of a view are applied: 'device' (the train step)
    # or 'host' (tf.data); None: the device, unless it is the host's own CPU.
    c.colour_on = placeholder(str)
    # Where a blur that only such operations follow is applied: 'device' or 'host'. Any other blur
    # is applied on the host, and so is what comes before it.
    c.blur_on = "device"
    return c


def _objective() -> ConfigDict:
    c = ConfigDict()
    # What is minimised: 'contrastive' (SimCLR), 'supervised' (the cross-entropy of the labels) or
    # 'distill' (a student learns what a teacher says of all images).
    c.name = "contrastive"
    # The run whose newest checkpoint is the teacher, which needs a classifier of the same classes;
    # None: no teacher ('distill' needs one).
    c.teacher = placeholder(str)
    # The number of the teacher's classes where the images have no labels, which a run finds in its
    # teacher; None: labels tell the classes.
    c.classes = placeholder(int)
    c.temperature = 1.0  # The temperature that divides the logits of teacher and student, above 0.
    # The weight of the labels' cross-entropy, beside 1 minus it for the teacher's part, 0 to 1; 0:
    # labels are not used.
    c.label_weight = 0.0
    return c


def _init() -> ConfigDict:
    c = ConfigDict()
    # The folder of a run, trained or imported, whose weights this one starts from where their names
    # and shapes fit; None: all weights are drawn by the seed.
    c.run = placeholder(str)
    c.step = placeholder(int)  # The step of the checkpoint of init.run; None: its newest one.
    return c


def _model() -> ConfigDict:
    c = ConfigDict()
    c.depth = 50  # The number of layers of the ResNet: 18, 34, 50, 101, 152 or 200.
    c.width = 1.0  # The multiple of the ResNet's usual numbers of filters (64 first), 1/16 to 16.
    # The hidden width of the selective kernels over their filters, 0 to 1; 0: no selective
    # kernels; SimCLRv2: 0.0625.
    c.sk_ratio = 0.0
    # The hidden width of squeeze-and-excitation over its filters, 0 to 1; 0: none.
    c.se_ratio = 0.0
    # The first layers: 'small' (3x3), 'imagenet' (7x7 and pooling), or 'auto' (small up to 32 px).
    c.stem = "auto"
    c.dtype = "float32"  # The dtype of the convolutions: 'float32' or 'bfloat16'.
    # Rematerialisation (gradient checkpointing): the activations that the backward pass computes
    # again, to save memory: 'none', those inside each residual 'block', or inside each 'stage'.
    c.remat = "none"
    c.head = "nonlinear"  # The projection head: 'none', 'linear' or 'nonlinear'.
    c.head_layers = 2  # The number of layers of a nonlinear projection head, 2 to 16; SimCLRv2: 3.
    c.head_dim = 128  # The number of dimensions of the embedding, at least 1.
    # The layer that the classifier sits on: 'h', or 'headK' for layer K of the head.
    c.classifier_layer = "h"
    return c


def _loss() -> ConfigDict:
    c = ConfigDict()
    # The contrastive loss: 'nt_xent', 'nt_logistic', 'margin_triplet' or 'dcl' (decoupled NT-Xent).
    c.name = "nt_xent"
    # The negatives of a view that count in 'nt_logistic' and 'margin_triplet': 'none' (nothing is
    # mined: all), or 'semi_hard' (the closest that is farther than the positive).
    c.mining = "none"
    # The similarity by which the positive shall exceed a negative in 'margin_triplet', at least 0.
    c.margin = 0.4
    # The temperature τ that divides the logits, above 0; of 'margin_triplet' only in the metrics.
    c.temperature = 0.1
    c.normalize = True  # Whether embeddings are normalised: logits are cosine similarities over τ.
    # The largest number of rows of logits, of 2B, that a device computes at a time, at least 2;
    # None: 1,024, or for 'nt_logistic' and 'margin_triplet' as many as fit in 128 MiB with 2B each.
    c.block_rows = placeholder(int)
    return c


def _optim() -> ConfigDict:
    c = ConfigDict()
    c.name = "lars"  # The optimizer: 'lars', 'momentum', 'adam' or 'adamw'.
    c.lr = 0.3  # The base learning rate, at least 0; lr_scaling turns it into the peak.
    # The peak learning rate for batch size B: 'linear' (lr·B/256), 'sqrt' (lr·√B) or 'none' (lr).
    c.lr_scaling = "linear"
    c.weight_decay = 1e-6  # The coefficient of the weight decay, at least 0.
    c.warmup_epochs = 10.0  # The length of the linear warm-up in epochs, at least 0.
    # Whether each device has a part of the optimizer's state, and updates its part of the
    # parameters, rather than a full copy; it saves memory, and results differ only by rounding.
    c.shard_state = False
    return c


def _train() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 4096  # The number of source images of a global batch, 2 to 2²⁰.
    c.epochs = 100.0  # The length of the run in epochs, above 0.
    # The length of the run and of its schedule in steps, in place of epochs; None: by epochs.
    c.steps = placeholder(int)
    # The hours that a run may take from its command to its end, above 0, for which it chooses what
    # the config leaves open, as folder:hours=1 does; None: nothing is chosen.
    c.hours = placeholder(float)
    # The number of microbatches of a batch, to save memory, at least 1; the loss still compares
    # all images of the batch, and microbatch_norm says what batch norm normalises by.
    c.microbatches = 1
    # The part of the network that stays as it is, batch-norm statistics included: 'none', 'stem',
    # 'stageK' (everything up to stage K of 4) or 'encoder'.
    c.frozen = "none"
    c.on_nonfinite = "stop"  # What an update that is not finite does to the run: 'stop' or 'skip'.
    # The number of skipped updates after which one more ends the run, at least 1 ('skip' only).
    c.max_skipped_updates = 10
    # Whether a GPU computes the same bits in every process, which is slower; CPU and TPU always do.
    c.deterministic = False
    # How long no step may end before the run stands still: this number of usual steps, at least 1,
    # and at least 5 minutes.
    c.hang_factor = 20.0
    # What a standstill does: 'report' (the stacks of all threads go to the log), 'exit' (after that
    # the process ends with status 3, so that its launcher can start it again) or 'ignore'.
    c.on_hang = "report"
    # The first and the last step of which a profile is written, such as (20, 25); None: no profile.
    c.profile_steps = placeholder(tuple)
    # The batch-norm statistics of a microbatch: those of its images ('per_microbatch') or the
    # moving averages ('running').
    c.microbatch_norm = "per_microbatch"
    return c


def _eval() -> ConfigDict:
    c = ConfigDict()
    # The epochs between two evaluations, above 0; None: by every_steps, else only at the end.
    c.every_epochs = placeholder(float)
    # The steps between two evaluations, at least 1, in place of every_epochs; None: by epochs.
    c.every_steps = placeholder(int)
    c.batch_size = placeholder(int)  # The images of a global batch; None: train.batch_size.
    # The largest number of training images, evenly chosen, among which the neighbours are sought
    # whose labels tell the class of an evaluation image, at least 0; 0: no eval_knn. The nearest
    # 200 vote; of fewer than 400 images with labels a tenth, at least 1, which the run says.
    c.knn_images = 4096
    return c


def _checkpoint() -> ConfigDict:
    c = ConfigDict()
    # The epochs between two checkpoints, above 0; None: by every_steps, else only at the end.
    c.every_epochs = FieldReference(1.0)
    # The steps between two checkpoints, at least 1, in place of every_epochs; None: by epochs.
    c.every_steps = placeholder(int)
    c.keep = 3  # The number of latest checkpoints to keep, at least 1; the best is kept besides.
    return c


def _log() -> ConfigDict:
    c = ConfigDict()
    c.every_steps = 50  # The steps between two rows of metrics.jsonl, at least 1.
    # The steps between two rows that also tell how similar positives and hardest negatives are,
    # alignment and uniformity, RankMe, the norm of the parameters and LARS's trust ratios, at least
    # 1; None: never. Each takes about as long as a step, so that 200 costs half a percent.
    c.measures_every_steps = FieldReference(200)
    c.tensorboard = True  # Whether the rows are written for TensorBoard as well, with pictures.
    # The tracker that gets the rows as well, which must be installed: 'wandb', 'trackio' or
    # 'swanlab'. Nothing leaves the machine unless WANDB_MODE, SWANLAB_MODE, TRACKIO_SPACE_ID or
    # TRACKIO_SERVER_URL says so. None: no tracker.
    c.tracker = placeholder(str)
    c.tracker_project = "simclr"  # The name of the tracker's project.
    return c


def arguments(text: str | None, **defaults: Any) -> dict[str, Any]:
    """Parses the arguments of a config file, by the types of their defaults.

    >>> arguments("depth=101,width=2", depth=50, width=1.0)
    {'depth': 101, 'width': 2.0}

    Args:
      text: The arguments, such as 'depth=50,width=2'; None or '': none.
      **defaults: The value of each argument that the text does not have.

    Returns:
      The value of every argument by its name.

    Raises:
      ValueError: A name is unknown, or a value has another type.
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
