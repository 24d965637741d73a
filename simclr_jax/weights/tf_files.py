"""The reader of TensorFlow's files: checkpoints of TF1 and TF2, and SavedModels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epy

from simclr_jax.errors import ArgumentError, one_line
from simclr_jax.weights.author_names import ignored, is_average

with epy.lazy_imports():
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# The parts of the authors' network below which object paths start.
_ROOTS = ("initial_conv_relu_max_pool", "block_groups", "_projection_head", "supervised_head")
# The names on the paths from those parts to their variables. Other names in the object graph lead
# out of the part.
_INNER = re.compile(
    r"\d+|layers|\w+_layers?|conv2d\w*|batch_norm_relu\w*|bn|bn_relu|dense|se_reduce|se_expand"
    r"|kernel|bias|gamma|beta|moving_mean|moving_variance"
)


def read(path: str) -> tuple[dict[str, np.ndarray], int]:
    """Reads the variables of a checkpoint or a SavedModel.

    Args:
      path: The prefix of a checkpoint (such as model.ckpt-1000), its .index file, a folder with
        one checkpoint, or the folder of a SavedModel.

    Returns:
      The arrays by name, and the global step, which is 0 if there is none. A variable in an object
      graph has its path as its name, and another one the name that it was saved with. Variables
      that only training needs are left out.

    Raises:
      ArgumentError: There is no checkpoint, it is damaged, or two variables have the same name.
    """
    prefix = _prefix(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
        keys = reader.get_variable_to_shape_map()
        names = {key: key for key in keys}
        if _GRAPH in keys:
            names |= dict(_object_names(reader.get_tensor(_GRAPH)))
        variables: dict[str, tuple[str, np.ndarray]] = {}  # The key and the array by name.
        steps, repeated = [], ""
        for key in keys:
            # Reading checks the data, so the variables that are left out are read too.
            array = reader.get_tensor(key)
            if re.match(r"global_step(/|$)", key):
                steps.append(array)
            if ignored(key) or ignored(name := names[key]):
                continue
            if name in variables:
                repeated = f"{name} is in it twice, as {variables[name][0]} and as {key}"
            variables[name] = key, array
    except Exception as error:  # TensorFlow raises errors of many types for damaged files.
        reason = f"cannot be read as a checkpoint: {one_line(error)}"
        raise ArgumentError("path", path, reason) from error
    if repeated:
        raise ArgumentError("path", path, repeated)
    step = int(steps[0]) if steps and np.ndim(steps[0]) == 0 else 0
    arrays = {name: array for name, (_, array) in variables.items()}
    return arrays, step if 0 <= step < 2**31 else 0


def _prefix(path: str) -> str:
    """The prefix of the checkpoint's files."""
    exists = tf.io.gfile.exists
    for prefix in (path.removesuffix(".index"), f"{path}/variables/variables"):
        if exists(f"{prefix}.index"):
            return prefix
    if tf.io.gfile.isdir(path):
        # The state names the newest checkpoint, with the path of the folder that it was written to.
        state = tf.train.get_checkpoint_state(path)
        latest = state and f"{path}/{os.path.basename(state.model_checkpoint_path)}.index"
        found = sorted(tf.io.gfile.glob(f"{path}/*.index"))
        if latest in found or len(found) == 1:
            return (latest if latest in found else found[0]).removesuffix(".index")
        if found:
            raise ArgumentError("path", path, f"name one of its checkpoints: {', '.join(found)}")
    raise ArgumentError(
        "path",
        path,
        "no checkpoint there; give its prefix (the path without .index), a folder that holds one, "
        "or a SavedModel's folder",
    )


def _object_names(graph: bytes) -> Iterator[tuple[str, str]]:
    """Yields the key in the checkpoint and the name of every variable in an object graph.

    The name of a variable that a moving average shares with the variable itself is preceded by
    ema_model/ for the average.
    """
    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    shortest = _shortest_paths(nodes)
    paths: dict[int, str] = {}  # The paths of the nodes below a root, by the node's number.

    def walk(node: int, path: str) -> None:
        if node in paths:
            return
        paths[node] = path
        for child in nodes[node].children:
            if _INNER.fullmatch(child.local_name):
                walk(child.node_id, f"{path}.{child.local_name}")

    for number, node in enumerate(nodes):
        for child in node.children:
            if child.local_name in _ROOTS:
                walk(child.node_id, f"{shortest.get(number, '')}{child.local_name}")
    for number, node in enumerate(nodes):
        for attribute in node.attributes:
            name = paths.get(number, attribute.full_name or attribute.checkpoint_key)
            if is_average(shortest.get(number, "").removesuffix(".")) and not is_average(name):
                name = f"ema_model/{name}"
            yield attribute.checkpoint_key, name


def _shortest_paths(nodes: Any) -> dict[int, str]:
    """The path of each node of an object graph by its number, such as 'model.resnet_model.'.

    Of the shortest paths to a node, one through a moving average is preferred: Keras refers to
    every layer by its number as well.
    """
    paths, level = {0: ""}, [0]
    while level:
        found: dict[int, str] = {}
        for number in level:
            for child in nodes[number].children:
                path = f"{paths[number]}{child.local_name}."
                if child.node_id not in paths and (
                    child.node_id not in found or is_average(path.removesuffix("."))
                ):
                    found[child.node_id] = path
        paths |= found
        level = list(found)
    return paths
