"""Networks of many seeds are the networks of each seed; training them is training each."""

from __future__ import annotations

import pytest
import torch

from flagscope.errors import InputError
from flagscope.lab.data import load_images
from flagscope.lab.linear import class_regression, covariances, linear_gradients
from flagscope.lab.networks import activation, grams, initial_network
from flagscope.lab.training import (
    Optimiser,
    batch_indices,
    cross_entropy,
    mean_square,
    recording_times,
    train,
)

SEEDS = [3, 11, 12]
X = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 4


def one_by_one(network, seed):
    """The network of one seed as a torch.nn module."""
    layers = []
    for i, weight in enumerate(network.weights):
        layer = torch.nn.Linear(weight.shape[2], weight.shape[1], dtype=torch.float64)
        layer.weight = torch.nn.Parameter(weight[seed].detach().clone())
        bias = network.biases[i][seed] if network.biases else torch.zeros(weight.shape[1])
        layer.bias = torch.nn.Parameter(bias.detach().clone().double())
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    "optimiser",
    [Optimiser(step=0.3, decay=0.1, momentum=0.5), Optimiser("adamw", step=0.01, decay=0.2)],
)
def test_training_together_is_training_alone(optimiser):
    network = initial_network([5, 6, 4], SEEDS, activation="tanh", bias=True)
    alone = [one_by_one(network, i) for i in range(3)]
    train(
        optimiser.build(network.parameters),
        lambda _: cross_entropy(network(X), LABELS),
        steps=25,
    )
    for i, module in enumerate(alone):
        made = optimiser.build(list(module.parameters()))
        for _ in range(25):
            made.zero_grad()
            torch.nn.functional.cross_entropy(module(X), LABELS).backward()
            made.step()
        torch.testing.assert_close(network(X)[i], module(X), rtol=1e-11, atol=1e-12)


def test_a_seed_draws_the_same_network_alone_and_among_others():
    together, alone = (initial_network([5, 6, 4], s) for s in (SEEDS, [11]))
    for a, b in zip(together.weights, alone.weights, strict=True):
        assert torch.equal(a[1], b[0])
        assert not torch.equal(a[0], a[1])


def test_initial_scale():
    (weight,) = initial_network([400, 300], [0], scale="he").weights
    # A chi-square of 120000 degrees of freedom.
    assert abs(weight.var().item() * 400 / 2 - 1) < 4 * (2 / 120000) ** 0.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [("linear", [-1, 0, 2]), ("relu", [0, 0, 2]), ("leaky:0.25", [-0.25, 0, 2])],
)
def test_activations(name, expected):
    z = torch.tensor([-1.0, 0.0, 2.0])
    assert activation(name)(z).tolist() == expected
    with pytest.raises(InputError, match="no activation"):
        activation(name + "x")


def test_losses_are_torchs():
    output = torch.randn(3, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.nn.functional.one_hot(LABELS).double()
    functional = torch.nn.functional
    entropy = sum(functional.cross_entropy(o, LABELS) for o in output)
    square = sum(0.5 * functional.mse_loss(o, target) * 4 for o in output)
    torch.testing.assert_close(cross_entropy(output, LABELS), entropy)
    torch.testing.assert_close(cross_entropy(output, LABELS.expand(3, 20)), entropy)
    torch.testing.assert_close(mean_square(output, target), square)


def test_gradients_of_linear_networks_are_autograds():
    network = initial_network([5, 6, 7, 4], SEEDS)
    target = torch.nn.functional.one_hot(LABELS).double()
    mean_square(network(X), target).backward()
    found = linear_gradients([w.detach() for w in network.weights], *covariances(X, target))
    for weight, gradient in zip(network.weights, found, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-12, atol=1e-13)


def test_grams():
    network = initial_network([5, 6, 7, 4], SEEDS)
    a, b = grams(network, 1)
    w1, w2 = network.weights[1][2], network.weights[2][2]
    torch.testing.assert_close(a[2], w1 @ w1.T)
    torch.testing.assert_close(b[2], w2.T @ w2)


def test_the_regression_is_centred_and_scaled():
    task = class_regression(load_images())
    assert task.inputs.mean(dim=0).abs().max() < 1e-14
    assert task.targets.mean(dim=0).abs().max() < 1e-14
    assert torch.linalg.matrix_norm(task.input_covariance, 2) == pytest.approx(1, rel=1e-12)
    # Principal components keep the largest variances.
    few = class_regression(load_images(), features=10)
    kept = torch.linalg.eigvalsh(few.input_covariance)
    every = torch.linalg.eigvalsh(task.input_covariance)
    torch.testing.assert_close(kept, every[-10:], rtol=1e-10, atol=0)


def test_records_and_diverging_runs():
    network = initial_network([5, 4], SEEDS)
    target = torch.nn.functional.one_hot(LABELS).double()
    seen = []
    train(
        Optimiser(step=0.1).build(network.parameters),
        lambda _: mean_square(network(X), target),
        steps=10,
        record=lambda n: seen.append((n, mean_square(network(X), target).item())),
        at=[0, 4, 10],
    )
    assert [n for n, _ in seen] == [0, 4, 10]
    assert seen[0][1] > seen[1][1] > seen[2][1]
    with pytest.raises(InputError, match="diverged"):
        train(
            Optimiser(step=1e3).build(network.parameters),
            lambda _: mean_square(network(X), target),
            steps=301,
        )
    with pytest.raises(InputError, match="no optimiser"):
        Optimiser("sdg").build(network.parameters)  # type: ignore[arg-type]


def test_minibatches_depend_on_their_own_seed():
    def drawn(seeds):
        return batch_indices(50, 6, [torch.Generator().manual_seed(s) for s in seeds])

    assert torch.equal(drawn([1, 2])[1], drawn([2])[0])
    assert 0 <= int(drawn(range(9)).min()) <= int(drawn(range(9)).max()) < 50


@pytest.mark.parametrize(("steps", "count", "first"), [(1000, 12, 1), (7, 20, 1), (5, 3, 10)])
def test_recording_times(steps, count, first):
    times = recording_times(steps, count, first=first)
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == (0, steps)
