"""The data, the model, and how it is trained and tested; nothing of Flower.

Data: 1797 images of 8x8 pixels that come with scikit-learn. A fixed fifth of them is the test set,
the rest is dealt out to the nodes like cards. Model: one hidden layer with ReLU, softmax on top,
trained by plain mini-batch gradient descent.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10
PIXELS = 64
TEST_SHARE = 5

Weights = list[np.ndarray]
Samples = tuple[np.ndarray, np.ndarray]


def load_train(partition: int, partitions: int) -> Samples:
    """The training images and labels of one of ``partitions`` equally large shares."""
    images, labels, is_test = _load()
    images, labels = images[~is_test], labels[~is_test]
    return images[partition::partitions], labels[partition::partitions]


def load_test() -> Samples:
    """The images and labels that no node trains on."""
    images, labels, is_test = _load()
    return images[is_test], labels[is_test]


def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.data[order] / 16.0).astype(np.float32)
    return images, data.target[order], np.arange(len(order)) % TEST_SHARE == 0


def initial_weights(hidden: int, seed: int) -> Weights:
    """Random weights and zero biases of both layers."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, np.sqrt(2 / PIXELS), (PIXELS, hidden)).astype(np.float32),
        np.zeros(hidden, np.float32),
        rng.normal(0, np.sqrt(2 / hidden), (hidden, CLASSES)).astype(np.float32),
        np.zeros(CLASSES, np.float32),
    ]


def train(
    weights: Weights, samples: Samples, epochs: int, batch_size: int, lr: float, seed: int
) -> tuple[Weights, float]:
    """The weights after ``epochs`` passes over ``samples``, and the mean loss of the last pass."""
    images, labels = samples
    w1, b1, w2, b2 = (layer.copy() for layer in weights)
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        order = rng.permutation(len(labels))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            x, y = images[batch], labels[batch]
            hidden, probabilities = _forward([w1, b1, w2, b2], x)
            losses.append(_loss(probabilities, y))
            error = probabilities
            error[np.arange(len(y)), y] -= 1
            error /= len(y)
            back = (error @ w2.T) * (hidden > 0)
            w2 -= lr * (hidden.T @ error)
            b2 -= lr * error.sum(axis=0)
            w1 -= lr * (x.T @ back)
            b1 -= lr * back.sum(axis=0)
    return [w1, b1, w2, b2], float(np.mean(losses)) if losses else 0.0


def test(weights: Weights, samples: Samples) -> tuple[float, float]:
    """Loss and accuracy (0 to 1) on ``samples``."""
    images, labels = samples
    _, probabilities = _forward(weights, images)
    return _loss(probabilities, labels), float(np.mean(probabilities.argmax(axis=1) == labels))


def _forward(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)
    scores = hidden @ w2 + b2
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-12)).mean())
