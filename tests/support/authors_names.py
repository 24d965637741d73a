"""What the authors' code would have called a network's variables, in each of their three styles.

Follows their constructors, block by block; written apart from the code that reads the names.
"""

import numpy as np

LEAVES = {
    "kernel": "kernel", "bias": "bias", "scale": "gamma", "mean": "moving_mean",
    "var": "moving_variance",
}  # fmt: skip


def named(variables):
    """{"tf1", "keras", "object"} → {name: array} of a SimCLR's variables."""
    names = _Names(variables)
    names.stem()
    for group in range(1, 5):
        index = 0
        while f"group{group}_block{index + 1}" in names.encoder:
            names.block(group, index)
            index += 1
    names.head()
    return names.found


class _Names:
    """Names collected in the order of the layers, whose numbers count them."""

    def __init__(self, variables):
        self.found = {"tf1": {}, "keras": {}, "object": {}}
        self.variables = variables
        self.encoder = variables["params"]["encoder"]
        self.pooled = "stem_conv1" in self.encoder
        self.numbers = {"conv2d": 0, "batch_normalization": 0}

    def add(self, layer, tf1, keras, path):
        for collection in ("params", "batch_stats"):
            tree = self.variables[collection]
            for key in layer:
                tree = tree.get(key, {})
            for leaf, array in tree.items():
                norm = leaf == "bias" and "bn" in layer[-1]
                name = "beta" if norm else LEAVES[leaf]
                self.found["tf1"][f"{tf1}/{name}"] = np.asarray(array)
                self.found["keras"][f"{keras}/{name}:0"] = np.asarray(array)
                self.found["object"][f"{path}.{name}"] = np.asarray(array)

    def encoder_layer(self, kind, layer, path, block=""):
        number = self.numbers[kind]
        self.numbers[kind] += 1
        suffix = f"_{number}" if number else ""
        keras = kind if kind == "conv2d" else f"sync_{kind}"
        self.add(
            ("encoder", *layer), f"base_model/{kind}{suffix}",
            f"resnet/{block}wrapper_{number}/{keras}{suffix}", f"resnet_model.{path}",
        )  # fmt: skip

    def conv(self, layer, path, block=""):
        self.encoder_layer("conv2d", layer, path, block)

    def norm(self, layer, path, block=""):
        self.encoder_layer("batch_normalization", layer, path, block)

    def stem(self):
        stem = "initial_conv_relu_max_pool"
        if self.pooled:
            for k, (c, b) in enumerate([(0, 1), (2, 3), (4, 6)], 1):
                self.conv((f"stem_conv{k}",), f"{stem}.{c}.conv2d")
                self.norm((f"stem_bn{k}",), f"{stem}.{b}.bn")
        else:
            self.conv(("stem_conv",), f"{stem}.0.conv2d")
            self.norm(("stem_bn",), f"{stem}.2.bn")

    def block(self, group, index):
        name = f"group{group}_block{index + 1}"
        at, block = f"block_groups.{group - 1}.layers.{index}", f"block_group{group}/block/"
        params = self.encoder[name]
        bottleneck = "conv3" in params
        if "shortcut_conv" in params:
            first = 1 if self.pooled and group == 1 else 2 if self.pooled else 0
            listed = "projection_layers" if bottleneck else "shortcut_layers"
            self.conv((name, "shortcut_conv"), f"{at}.{listed}.{first}.conv2d", block)
            self.norm((name, "shortcut_bn"), f"{at}.{listed}.{first + 1}.bn", block)
        main = f"{at}.{'conv_relu_dropblock_layers' if bottleneck else 'conv2d_bn_layers'}"
        self.conv((name, "conv1"), f"{main}.0.conv2d", block)
        self.norm((name, "bn1"), f"{main}.1.bn", block)
        if "sk" in params:
            self.conv((name, "sk", "conv"), f"{main}.3.conv2d_fixed_padding.conv2d", block)
            self.norm((name, "sk", "bn"), f"{main}.3.batch_norm_relu.bn", block)
            self.conv((name, "sk", "reduce"), f"{main}.3.conv2d_0", block)
            self.norm((name, "sk", "reduce_bn"), f"{main}.3.batch_norm_relu_1.bn", block)
            self.conv((name, "sk", "expand"), f"{main}.3.conv2d_1", block)
        else:
            second = 3 if bottleneck else 2
            self.conv((name, "conv2"), f"{main}.{second}.conv2d", block)
            self.norm((name, "bn2"), f"{main}.{second + 1}.bn", block)
        if bottleneck:
            third = 5 if "sk" in params else 6
            self.conv((name, "conv3"), f"{main}.{third}.conv2d", block)
            self.norm((name, "bn3"), f"{main}.{third + 1}.bn", block)
        if "se" in params:
            excite = f"{main}.8" if bottleneck else f"{at}.se_layer"
            self.conv((name, "se", "reduce"), f"{excite}.se_reduce", block)
            self.conv((name, "se", "expand"), f"{excite}.se_expand", block)

    def head(self):
        head = self.variables["params"].get("head", {})
        count = len(head) // 2
        for layer in range(count):
            scope = f"nl_{layer}" if count > 1 else "l_0"
            number = f"_{layer}" if layer else ""
            at = f"_projection_head.linear_layers.{layer}"
            self.add(
                ("head", f"dense{layer + 1}"), f"head_contrastive/{scope}/dense",
                f"projection_head/{scope}/dense{number}", f"{at}.dense",
            )  # fmt: skip
            self.add(
                ("head", f"bn{layer + 1}"), f"head_contrastive/{scope}/batch_normalization",
                f"projection_head/{scope}/batch_norm_relu_70/sync_batch_normalization_{70 + layer}",
                f"{at}.bn_relu.bn",
            )  # fmt: skip
        if "classifier" in self.variables["params"]:
            self.add(
                ("classifier", "dense"), "head_supervised/linear_layer/dense",
                "head_supervised/linear_layer/dense_3", "supervised_head.linear_layer.dense",
            )  # fmt: skip
