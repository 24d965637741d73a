"""SimCLR in JAX."""

import os

# TensorFlow greets on stderr when it is imported; it reads the pipeline here, and should be silent.
# oneDNN would only round differently from one machine to the next.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
