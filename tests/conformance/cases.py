"""What is compared between processes: each registered layer, and a network."""

import keras
import numpy as np
from registry import REGISTRY, set_weights

from tfmtl import layers

L0 = 0.125


class Network:
    """Experts, a routing and a tower, under test like a single layer."""

    id = "Network"

    def model(self):
        x = keras.Input((6,), name="x")
        y = layers.Experts(3, 8, activation="tanh")(x)
        y = layers.SubNetworkRouting(2, 4, activation="tanh", hard_concrete={"l0": L0})(
            y
        )
        y = layers.Tower((4,))(keras.layers.Flatten()(y))
        return set_weights(keras.Model({"x": x}, {"y": y}, name="network"))

    def rows(self, batch, seed=0):
        return np.random.default_rng(seed).normal(size=(batch, 6)).astype("f4")


NETWORK = Network()
CASES = [*REGISTRY, NETWORK]
WITHOUT_GRADIENT = {
    "BroadcastConstant",
    "Bucketize",
    "HashedCross",
}  # a constant, integers
