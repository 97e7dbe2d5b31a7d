"""Keras on TensorFlow: the folded network, compiled by tf.function, the next batches decoded by a thread pool."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.contest import arguments, batches_decoded_ahead, folded, image_spec, resized_to, time_extraction
from datasets.image import load_images

BATCH_SIZE = 32


def build(facts: dict, arrays: dict) -> keras.Model:
    """Channels last, as TensorFlow's CPU kernels want them."""
    x = inputs = keras.Input((*image_spec(facts).size, 3))
    weights = []
    for b, block in enumerate(facts["blocks"]):
        entry = x
        for c, kind in enumerate(block["convolutions"]):
            weight, bias = arrays[f"{b}_{c}_weight"], arrays[f"{b}_{c}_bias"]
            kernel_size = weight.shape[-1]
            padding = "same"
            if facts["pad_mode"] == "pad" and kernel_size > 1:
                x, padding = keras.layers.ZeroPadding2D((kernel_size - 1) // 2)(x), "valid"
            if kind["group"] == 1:
                layer = keras.layers.Conv2D(weight.shape[0], kernel_size, kind["stride"], padding)
                weights.append((layer, [weight.transpose(2, 3, 1, 0), bias]))
            else:
                layer = keras.layers.DepthwiseConv2D(kernel_size, kind["stride"], padding)
                weights.append((layer, [weight.transpose(2, 3, 0, 1), bias]))
            x = layer(x)
            if kind["relu6"]:
                x = keras.layers.ReLU(6)(x)
        if block["residual"]:
            x = keras.layers.Add()([entry, x])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    for layer, values in weights:
        layer.set_weights(values)
    return model


def load_by_tensorflow(paths, spec) -> tuple[np.ndarray, dict]:
    """As Keras' own data sets do it: TensorFlow decodes the whole picture and resizes it."""
    images = []
    for path in paths:
        picture = tf.io.decode_jpeg(tf.io.read_file(str(path)), channels=3)
        height, width = picture.shape[:2]
        resized = tf.image.resize(picture, resized_to((width, height), spec)[::-1], antialias=True)
        top, left = (resized.shape[0] - spec.size[0]) // 2, (resized.shape[1] - spec.size[1]) // 2
        images.append(
            np.asarray(resized[top : top + spec.size[0], left : left + spec.size[1]]).round().astype(np.uint8)
        )
    return np.stack(images), {}


if __name__ == "__main__":
    given = arguments()
    tf.config.threading.set_intra_op_parallelism_threads(given.threads)
    facts, arrays = folded(given.place)
    spec = image_spec(facts)
    model = build(facts, arrays)
    run = tf.function(lambda x: model(x, training=False), reduce_retracing=True)

    def forward(batch: np.ndarray) -> np.ndarray:
        return run(tf.constant(batch)).numpy()

    def extract(paths):
        load = load_by_tensorflow if given.decoding == "usual" else load_images
        batches = batches_decoded_ahead(paths, spec, BATCH_SIZE, given.threads, load)
        return np.concatenate([forward(batch.transpose(0, 2, 3, 1)) for batch in batches])

    blank = np.zeros((BATCH_SIZE, *spec.size, 3), np.float32)
    time_extraction(extract, lambda: forward(blank), given, "keras", BATCH_SIZE)
