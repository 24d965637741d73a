"""TensorFlow 1's checkpoints, as the authors' code wrote them."""

import tensorflow as tf


def write(prefix, arrays):
    """Saves {name of a variable: array} under a prefix."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saved = [
            tf.compat.v1.get_variable(name, initializer=tf.constant(array))
            for name, array in arrays.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(saved).save(session, str(prefix))
