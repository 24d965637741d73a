"""simclr-train with the tests' ten-layer network and cache of compiled programs.

python faults_worker.py FLAGS…; the cache's folder is FAULTS_CACHE.
"""

import os

import jax

from simclr_jax.models import resnet

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", os.environ["FAULTS_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    resnet.BLOCKS[10] = (resnet.BasicBlock, (1, 1, 1, 1))
    from simclr_jax import train  # which reads BLOCKS

    train.main()
