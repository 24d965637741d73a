"""Configs: every shipped one is valid, and every mistake is one line that names it."""

import re

import pytest

from simclr_jax import train
from simclr_jax.config import constraints, default, inputs, overrides, rules, same_run
from simclr_jax.errors import UserError
from simclr_jax.eval import PROTOCOLS
from support.runs import status_of

DIGITS = "--config=digits"
SHIPPED = ["finetune", "finetune:data=cifar10,labels=0.1,batch=256",
           "finetune:data=folder,labels=1", "finetune:recipe=simclr",
           "supervised:data=cifar10", "continued:depth=18,image_size=64",
           "digits", "cifar10", "cifar10:recipe=small_batch", "imagenet", "folder",
           "imagenet:depth=152,width=3,sk_ratio=0.0625", "distill", "distill:data=imagenet",
           "eval/linear", "eval/knn",
           "eval/embed", "eval/classifier", "eval/retrieval", "eval/geometry",
           "eval/transform"]  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid_on_8_devices(name):
    config = overrides.load([f"--config={name}"])
    if name.startswith("eval/"):
        protocol = PROTOCOLS[config.protocol]
        rows = {**rules.EVALUATION, **protocol.RULES}
        rules.check(config, rows, devices=8)
        assert set(overrides.keys(config)) == set(rows)
    else:
        constraints.check_run(config, devices=8)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("", ("lars", 0.005, "sqrt", 1024, "head1", 60.0)),
        (",labels=0.1", ("lars", 0.005, "sqrt", 1024, "head1", 30.0)),
        (",recipe=simclr", ("momentum", 0.05, "linear", 4096, "h", 60.0)),
        (",recipe=simclr,labels=0.1,batch=64", ("momentum", 0.05, "linear", 64, "h", 30.0)),
    ],
)
def test_fine_tuning_has_the_settings_of_either_paper(recipe, expected):
    """SimCLRv2's section 3 and SimCLR's appendix B.5; neither has decay, warm-up or colours."""
    c = overrides.load([f"--config=finetune:data=imagenet{recipe}"])
    optim, train = c.optim, c.train
    found = (optim.name, optim.lr, optim.lr_scaling, train.batch_size, c.model.classifier_layer)
    assert (*found, train.epochs) == expected
    assert (optim.weight_decay, optim.warmup_epochs, c.augment.ops) == (0, 0, ("crop", "flip"))


@pytest.mark.parametrize("labels", ["2", "0", "-1", "nan"])
def test_fine_tuning_on_a_fraction_that_is_none_is_refused(labels):
    line = rf"--config=finetune:labels={labels}: .*'labels={labels}': must be above 0 and at most 1"
    with pytest.raises(UserError, match=line):
        overrides.load([f"--config=finetune:labels={labels}"])


CHECKING = [
    ("train.batch_size", 100, "config.train.batch_size=100: must be a multiple of the 8 devices"),
    ("train.batch_size", -8, "config.train.batch_size=-8: must be at least 2"),
    ("train.epochs", 0.0, "config.train.epochs=0.0: must be above 0"),
    ("train.steps", 0, "config.train.steps=0: must be at least 1"),
    ("seed", -1, "config.seed=-1: must be at least 0 and at most 2147483647"),
    ("data.image_size", 4, "config.data.image_size=4: must be at least 8"),
    ("data.transfer_dtype", "float16", "config.data.transfer_dtype='float16': must be one of"),
    ("data.on_bad_image", "ignore", "config.data.on_bad_image='ignore': must be one of replace"),
    ("augment.ops", ("crop", "mixup"), "config.augment.ops=('crop', 'mixup'): must be a tuple of"),
    ("augment.ops", ("crop", "crop"), "each at most once"),
    ("augment.ops", ("flip", "shared_crop"), "and shared_crop only as the first, or one"),
    ("augment.ops", (("crop",), "flip"), "config.augment.ops=(('crop',), 'flip'): must be a tuple"),
    ("augment.ops", (("crop",), ("warp",)), "config.augment.ops=(('crop',), ('warp',)): must be"),
    ("augment.ops", (("crop",),) * 3, ": must be one list, or 2 for 2 views"),
    ("augment.crop_area", ("a", "b"), "config.augment.crop_area=('a', 'b'): must be two"),
    ("train.steps", 10**400, "must be at least 1 and at most 2147483647"),
    ("augment.crop_area", (0.5, 0.1), "config.augment.crop_area=(0.5, 0.1): must be two fractions"),
    ("augment.policy", "trivial", "config.augment.policy='trivial': must be one of autoaugment, r"),
    ("augment.blur_on", "tpu", "config.augment.blur_on='tpu': must be one of device, host"),
    ("model.depth", 19, "config.model.depth=19: must be one of 18, 34, 50, 101, 152, 200"),
    ("model.width", 0.01, "config.model.width=0.01: must be at least 0.0625"),
    ("model.sk_ratio", -1.0, "config.model.sk_ratio=-1.0: must be at least 0"),
    ("model.stem", "imagenet", "config.data.image_size=8: must be at least 32 for the imagenet"),
    ("model.dtype", "float16", "config.model.dtype='float16': must be one of float32, bfloat16"),
    ("model.head", "mlp", "config.model.head='mlp': must be one of none, linear, nonlinear"),
    ("data.views", 1, "config.data.views=1: must be 2 for objective.name=contrastive"),
    ("objective.name", "byol", "config.objective.name='byol': must be one of contrastive, superv"),
    ("train.frozen", "stage5", "config.train.frozen='stage5': must be one of none, stem, stage1, "),
    ("loss.name", "hinge", "config.loss.name='hinge': must be one of nt_xent, nt_logistic"),
    ("loss.mining", "hard", "config.loss.mining='hard': must be one of none, semi_hard"),
    ("loss.mining", "semi_hard", "'semi_hard': must be none for loss.name=nt_xent"),
    ("loss.margin", -0.1, "config.loss.margin=-0.1: must be at least 0"),
    ("loss.margin", float("nan"), "config.loss.margin=nan: must be at least 0"),
    ("loss.temperature", 0.0, "config.loss.temperature=0.0: must be above 0"),
    ("loss.temperature", float("nan"), "config.loss.temperature=nan: must be above 0"),
    ("optim.name", "sgd", "config.optim.name='sgd': must be one of lars, momentum, adam, adamw"),
    ("optim.lr", float("inf"), "config.optim.lr=inf: must be at least 0"),
    ("optim.lr_scaling", "cubic", "config.optim.lr_scaling='cubic': must be one of linear"),
    ("train.profile_steps", (1,), "config.train.profile_steps=(1,): must be None, or the first"),
    ("checkpoint.keep", 0, "config.checkpoint.keep=0: must be at least 1"),
    ("data.name", None, "config.data.name=None: must be a TFDS name"),
]  # fmt: skip


ODD = [(), (1,), (2, 1), (1, 2, 3), ((),), (None,), ("a",), "", "a", -1, 1.5, 10**400, float("nan")]


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_no_value_of_any_key_ends_in_another_error(value):
    found = {**rules.RUN, **rules.EVALUATION}
    for protocol in PROTOCOLS.values():
        found |= protocol.RULES
    for key, rule in found.items():
        try:
            allowed = rules.holds(rule, value)
        except Exception as error:
            pytest.fail(f"{key}={value!r}: {error!r}")
        assert allowed in (True, False)


@pytest.mark.parametrize(("key", "value", "line"), CHECKING)
def test_bad_values_are_named_with_what_is_allowed(key, value, line):
    config = overrides.load([DIGITS, "--config.data.image_size=8"])
    config = overrides.changed(config, {key: value})
    with pytest.raises(UserError) as error:
        constraints.check_run(config, devices=8)
    assert line in str(error.value)


def test_lists_of_operations_are_as_many_as_the_views():
    config = overrides.load([DIGITS, "--config.data.image_size=8"])
    lists = (("crop",), ("crop", "jitter"))
    constraints.check_run(overrides.changed(config, {"augment.ops": lists}), devices=8)
    supervised = {"augment.ops": lists, "objective.name": "supervised"}
    with pytest.raises(UserError, match=r"one list, or 1 for 1 view, or data\.views=2$"):
        constraints.check_run(overrides.changed(config, supervised), devices=8)
    two = overrides.changed(config, {**supervised, "data.views": 2})
    constraints.check_run(two, devices=8)
    assert inputs.views(two).ops == lists
    policy = overrides.changed(two, {"augment.policy": "randaugment"})
    constraints.check_run(policy, devices=8)
    assert inputs.views(policy).ops == (("crop", "randaugment"), ("crop", "randaugment", "jitter"))


def test_policies_are_of_red_green_and_blue():
    changes = {"data.channels": 5, "augment.policy": "randaugment"}
    with pytest.raises(UserError, match=r"augment.policy='randaugment': must be None for data.cha"):
        constraints.check_run(overrides.changed(overrides.load([DIGITS]), changes), devices=8)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dcl", "config.loss.mining='semi_hard': must be none for loss.name=dcl"),
        ("nt_logistic", None),
        ("margin_triplet", "config.loss.margin=0.0: must be above 0 for loss.mining=semi_hard, "),
    ],
)
def test_negatives_are_mined_where_there_can_be_some(name, line):
    config = overrides.load([DIGITS, f"--config.loss.name={name}", "--config.loss.margin=0"])
    constraints.check_run(config, devices=8)
    config = overrides.changed(config, {"loss.mining": "semi_hard"})
    if line is None:
        constraints.check_run(config, devices=8)
        return
    with pytest.raises(UserError) as error:
        constraints.check_run(config, devices=8)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(("classes", "these"), [(0, "without labels"), (1, "of one class")])
def test_an_objective_of_classes_needs_two(classes, these):
    config = overrides.load([DIGITS, "--config.objective.name=supervised"])
    constraints.check_run(overrides.changed(config, {"data.num_classes": None}), devices=8)
    with pytest.raises(UserError) as error:
        constraints.check_run(overrides.changed(config, {"data.num_classes": classes}), devices=8)
    line = f"config.objective.name='supervised': must be contrastive, for the images are {these}"
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("name", "key", "value", "line"),
    [
        ("distill", "objective.label_weight", 0.1, "0.1: must be 0, for the images have no labels"),
        ("distill", "objective.label_weight", 0.0, None),
        ("distill", "objective.classes", 10, None),
        ("contrastive", "objective.classes", 10, "10: must be None but for a distillation without"),
    ],
)
def test_without_labels_the_classes_of_a_distillation_are_its_teachers(name, key, value, line):
    config = overrides.load([DIGITS, f"--config.objective.name={name}"])
    config = overrides.changed(config, {"data.num_classes": 0, key: value})
    if line is None:
        constraints.check_run(config, devices=8)
        return
    with pytest.raises(UserError) as error:
        constraints.check_run(config, devices=8)
    assert str(error.value).startswith(f"config.{key}={line}")


def test_an_evaluations_config_does_not_train(tmp_path, capsys):
    assert status_of(train.main, "--config=eval/knn", f"--workdir={tmp_path}/run") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "--config=eval/knn: is an evaluation's, which simclr-eval takes"


def test_a_config_without_keys_of_a_run_names_them(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'seed': 0})"
    )
    argv = [f"--config={tmp_path}/mine.py", f"--workdir={tmp_path}/run"]
    assert status_of(train.main, *argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"--config: lacks augment\.blur_on, .*is it a training run's\?", line)


@pytest.mark.parametrize("value", [True, (0.1, True), "0.1", None])
def test_only_numbers_are_numbers(value):
    assert not rules.holds(rules.some(rules.above(0)), value)


def test_another_config_does_not_continue_a_run():
    config = overrides.load([DIGITS])
    same = overrides.load([DIGITS, "--config.log.every_steps=3", "--config.checkpoint.keep=9"])
    same_run.check(same, config, "RUN")
    other = overrides.load([DIGITS, "--config.model.head_dim=7", "--config.seed=1"])
    with pytest.raises(UserError) as error:
        same_run.check(other, config, "RUN")
    assert "config.model.head_dim=7 (the run has 64)" in str(error.value)
    assert "config.seed=1 (the run has 0)" in str(error.value)


def test_every_default_key_has_a_row_and_every_row_a_key():
    assert sorted(rules.RUN) == sorted(overrides.keys(default.get_config()))
    default_values = overrides.changed(default.get_config(), {"data.name": "digits"})
    rules.check(default_values, rules.RUN, devices=8)


@pytest.mark.parametrize(
    ("key", "on_resume"),
    [
        ("log.every_steps", "free"), ("eval.batch_size", "free"), ("checkpoint.keep", "free"),
        ("data.dir", "free"), ("data.cache_bytes", "free"), ("data.on_bad_image", "free"),
        ("model.remat", "free"), ("loss.block_rows", "free"), ("train.on_nonfinite", "free"),
        ("seed", "fixed"), ("model.depth", "fixed"), ("model.head_dim", "fixed"),
        ("optim.name", "fixed"), ("train.batch_size", "fixed"), ("data.name", "fixed"),
        ("data.train_split", "fixed"), ("data.num_classes", "fixed"), ("data.held_out", "fixed"),
        ("data.shuffle_block", "fixed"), ("data.image_size", "fixed"),
        ("data.channels", "fixed"),
        ("objective.name", "fixed"), ("init.run", "fixed"), ("train.frozen", "fixed"),
        ("data.views", "ask"),
        ("model.dtype", "ask"), ("optim.lr", "ask"), ("augment.ops", "ask"), ("loss.name", "ask"),
        ("loss.mining", "ask"), ("loss.margin", "ask"),
        ("train.epochs", "ask"), ("data.eval_split", "ask"), ("train.microbatches", "ask"),
    ],
)  # fmt: skip
def test_what_a_continued_run_may_do_with_a_key(key, on_resume):
    assert rules.RUN[key].on_resume == on_resume


def test_a_key_that_the_user_added_may_change_if_they_say_so():
    config = overrides.changed(overrides.load([DIGITS]), {"train.note": "a"})
    other = overrides.changed(config, {"train.note": "b"})
    with pytest.raises(UserError, match="--allow_config_change"):
        same_run.check(other, config, "RUN")
    assert same_run.check(other, config, "RUN", allow_change=True) == ["train.note"]
