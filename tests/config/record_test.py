"""What a run is made of, written down and read again."""

from simclr_jax.config import overrides, record


def test_a_description_gives_the_config_back():
    config = overrides.load(["--config=digits"])
    described = record.describe(config, device="cpu", devices=8)
    again = record.from_json(described)
    assert again.to_dict() == config.to_dict()
    assert {"jax", "tensorflow-cpu", "pillow"} <= described["versions"].keys()
