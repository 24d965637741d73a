"""SimCLR in JAX and Flax: pretraining, evaluation and export."""

import os

# TensorFlow logs to stderr when it is imported, and again for every unreadable image. Level 3 turns
# those messages off; the errors are still raised, and we report them.
# oneDNN is off because its rounding differs between machines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
