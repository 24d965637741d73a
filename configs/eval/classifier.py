"""The run's own classifier: accuracy, confusion matrix, and what it predicts for each image.

Command:  simclr-eval --config=configs/eval/classifier.py --run=RUN
          … --config.data.name=folder --config.data.dir=IMAGES --config.classifier.split=all
          … --config.data.num_classes=0    (images without labels: the predictions alone)
Hardware: any; with all devices, at the speed of the encoder's forward pass.
Result:   RUN/eval/classifier/STEP/WHAT/predictions.parquet, with one row per image.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the evaluation of a run's classifier."""
    c = default_eval.get_config("classifier")
    c.features.layer = "logits"  # The outputs of the classifier, whichever layer it sits on.
    c.classifier = classifier = ConfigDict()
    # The split: 'eval', 'train', or 'all' (both, with no image held out).
    classifier.split = "eval"
    return c
