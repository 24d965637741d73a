"""SimCLR in JAX."""

import os

# TensorFlow greets on stderr when it is imported, and complains there of images whose errors we
# catch and report; what is wrong it raises as well.
# oneDNN would only round differently from one machine to the next.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
