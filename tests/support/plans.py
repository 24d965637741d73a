"""A TPU compiler that answers at once, in place of the one that takes minutes."""

import pytest

from simclr_jax import plan

MEASURED = {
    "chips": 32, "hosts": 8, "flops": 6.2e12, "analytic_flops": 6.2e12, "hbm_bytes": 80e9,
    "memory": {
        "params": 2**27, "optimizer": 2**27, "activations": 9 * 2**30, "images": 2**27,
        "total": 10 * 2**30,
    },
    "collectives": [
        {"kind": "all-gather", "count": 2, "bytes": 4_000_000},
        {"kind": "all-reduce", "count": 100, "bytes": 74_000_000},
    ],
}  # fmt: skip


@pytest.fixture
def compiler(monkeypatch):
    """Answers with MEASURED scaled to the batch; where that is over 15.75 GiB, with a refusal."""
    asked, find_spec = [], plan.importlib.util.find_spec

    def compile_step(config, topology):
        asked.append(config.train.batch_size)
        total = 2**30 + 9 * 2**30 * config.train.batch_size // 4096
        if total > 15.75 * 2**30:
            return {"needs": total}
        return MEASURED | {"memory": MEASURED["memory"] | {"total": total}}

    monkeypatch.setattr(plan, "compile_step", compile_step)
    monkeypatch.setattr(
        plan.importlib.util, "find_spec", lambda name: name == "libtpu" or find_spec(name)
    )
    return asked
