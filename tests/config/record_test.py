"""What a run is made of, written down and read again."""

import json

from simclr_jax.config import overrides, record


def test_a_description_gives_the_config_back():
    config = overrides.load(["--config=digits", "--config.augment.ops=(crop,),(crop,jitter)"])
    described = record.describe(config, device="cpu", devices=8)
    again = record.from_json(json.loads(json.dumps(described)))
    assert again.to_dict() == config.to_dict()
    assert {"jax", "tensorflow-cpu", "pillow"} <= described["versions"].keys()
