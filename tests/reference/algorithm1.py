"""Algorithm 1 of the paper in NumPy, written from the paper's text for a block that can be differentiated by hand.

The block is a = x + W x + b. Nothing here is shared with the package.
"""

import random

import numpy as np


class AdamW:
    """Loshchilov & Hutter 2019, without weight decay."""

    def __init__(self, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.time, self.first, self.second = 0, {}, {}

    def step(self, parameters, gradients):
        self.time += 1
        for name, gradient in gradients.items():
            self.first[name] = self.beta1 * self.first.get(name, 0) + (1 - self.beta1) * gradient
            self.second[name] = self.beta2 * self.second.get(name, 0) + (1 - self.beta2) * gradient**2
            first = self.first[name] / (1 - self.beta1**self.time)
            second = self.second[name] / (1 - self.beta2**self.time)
            parameters[name] -= self.rate * first / (np.sqrt(second) + self.epsilon)


def algorithm_1(inputs, kinds, weight, bias, alpha, rate, epochs, recompute_every, seed):
    """`inputs` (query, d): what block l* receives at the last token; `kinds`: "Q-", "Q+" or "QPH" of each query."""
    theta = {"W": weight.astype(np.float64).copy(), "b": bias.astype(np.float64).copy()}

    def activation(x):
        return x + theta["W"] @ x + theta["b"]

    def refusal_vector():
        harmful = np.mean([activation(x) for x, kind in zip(inputs, kinds, strict=True) if kind == "Q-"], axis=0)
        safe = np.mean([activation(x) for x, kind in zip(inputs, kinds, strict=True) if kind == "Q+"], axis=0)
        return harmful - safe  # Eq. 1

    optimizer = AdamW(rate)
    vector = refusal_vector()
    shuffler = random.Random(seed)
    step = 0
    losses = []
    for _ in range(epochs):
        order = list(range(len(inputs)))
        shuffler.shuffle(order)
        for query in order:
            if step and step % recompute_every == 0:
                vector = refusal_vector()
            x = inputs[query]
            a = activation(x)
            projection = (vector @ a) / (vector @ vector) * vector  # Eq. 3
            target = a + alpha * projection if kinds[query] == "Q-" else a - alpha * projection  # Eq. 9
            norm_a, norm_t = np.linalg.norm(a), np.linalg.norm(target)
            cosine = a @ target / (norm_a * norm_t)
            losses.append(1 - cosine)  # Eq. 8
            gradient = -(target / (norm_a * norm_t) - cosine * a / norm_a**2)  # of 1 - cos, the target held fixed
            optimizer.step(theta, {"W": np.outer(gradient, x), "b": gradient})
            step += 1
    return theta["W"], theta["b"], losses
