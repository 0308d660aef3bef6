import copy
import math

import numpy as np
import pytest
import torch

from flagscope.diagnose import (
    NeuralCollapse,
    neural_collapse,
    neural_collapse_of_module,
    simplex_fit,
)
from flagscope.errors import InputError
from geometry.planted import haar, normal

K, D = 5, 12
FIELDS = ("nc1", "nc1_trace_ratio", "nc3", "nc3_centred", "nc4")
FITS = ("norm_variation", "cosine_variation", "cosine_excess", "simplex_distance")


def frame(k=K, d=D, *, size=1.0):
    """Rows of a simplex ETF of this norm, in a random (k-1)-dimensional subspace of R^d."""
    rows = (torch.eye(k, dtype=torch.float64) - 1 / k) @ haar(1, d, k, seed=1)[0].mT
    return size * rows / rows.norm(dim=1, keepdim=True)


def cloud(sizes, *, seed=0, offset=0.0):
    """Features of classes of these sizes, about random means."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    means = 2 * normal(len(sizes), D, seed=seed)
    features = means[labels] + normal(len(labels), D, seed=seed + 1) + offset
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return features[order], labels[order]


def naive(h, y, w, b):
    """The definitions of Papyan, Han and Donoho, written out in numpy on all samples at once."""
    h, y, w, b = (np.asarray(x) for x in (h, y, w, b))
    k = len(w)
    mu = np.stack([h[y == c].mean(0) for c in range(k)])
    m = mu - mu.mean(0)
    sigma_w = sum(np.outer(x - mu[c], x - mu[c]) for x, c in zip(h, y, strict=True)) / len(h)
    sigma_b = sum(np.outer(x, x) for x in m) / k
    distance = np.linalg.norm(h[:, None, :] - mu[None], axis=-1)
    unit = [w / np.linalg.norm(w), m / np.linalg.norm(m)]
    centred = w - w.mean(0)
    return {
        "nc1": np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=1e-10)) / k,
        "nc1_trace_ratio": np.trace(sigma_w) / np.trace(sigma_b),
        "nc3": np.linalg.norm(unit[0] - unit[1]),
        "nc3_centred": np.linalg.norm(centred / np.linalg.norm(centred) - unit[1]),
        "nc4": np.mean((h @ w.T + b).argmax(1) == distance.argmin(1)),
        "nc2_means": naive_fit(m),
        "nc2_weights": naive_fit(w),
    }


def naive_fit(v):
    k = len(v)
    norms = np.linalg.norm(v, axis=1)
    cosines = [v[i] @ v[j] / norms[i] / norms[j] for i in range(k) for j in range(i)]
    gram, target = v @ v.T, np.eye(k) - np.ones((k, k)) / k
    return {
        "norm_variation": norms.std() / norms.mean(),
        "cosine_variation": np.std(cosines),
        "cosine_excess": np.mean([abs(c + 1 / (k - 1)) for c in cosines]),
        "simplex_distance": np.linalg.norm(
            gram / np.linalg.norm(gram) - target / np.linalg.norm(target)
        ),
    }


def streamed(h, y, w, b, sizes):
    collapse = NeuralCollapse(len(w))
    for features, labels in zip(h.split(sizes), y.split(sizes), strict=True):
        collapse.update(features, labels)
    agreement = collapse.agreement(w, b)
    for features in h.split(sizes):
        agreement.update(features)
    return collapse.result(w, b, agreement=agreement)


def assert_same(record, expected, *, rel):
    values = expected if isinstance(expected, dict) else expected.model_dump()
    found = record.model_dump()
    for name in FIELDS:
        assert found[name] == pytest.approx(values[name], rel=rel), name
    for fit in ("nc2_means", "nc2_weights"):
        for name in FITS:
            assert found[fit][name] == pytest.approx(values[fit][name], rel=rel), (fit, name)


# Closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0])
def test_simplex_with_planted_noise(k, noise):
    # Class means s·f_c with ‖f_c‖ = 1: Σ_B = s²/(K-1) on the span of the frame. Deviations ±noise
    # along each of d orthonormal axes: Σ_W = (noise²/d) I. So NC1 = (K-1)² noise²/(d s² K) and the
    # ratio of traces is noise²/s².
    d, s = 14, 2.5
    f = frame(k, d, size=s)
    axes = noise * haar(1, d, d, seed=5)[0]
    deviations = torch.cat([axes, -axes])
    features = (f[:, None, :] + deviations).reshape(-1, d)
    labels = torch.arange(k).repeat_interleave(2 * d)
    record = neural_collapse([(features, labels)], 7 * f)
    assert record.rank == k - 1
    assert record.nc1 == pytest.approx(
        (k - 1) ** 2 * noise**2 / (d * s**2 * k), rel=1e-12, abs=1e-28
    )
    assert record.nc1_trace_ratio == pytest.approx(noise**2 / s**2, rel=1e-12, abs=1e-28)
    for fit in (record.nc2_means, record.nc2_weights):
        assert max(fit.model_dump().values()) < 1e-13
    assert record.nc3 < 1e-13
    assert record.nc3_centred < 1e-13
    if noise < 1:
        assert record.nc4 == 1.0
    assert record.status == "ok"


def test_orthogonal_vectors_are_no_simplex():
    # Cosines 0: excess 1/(K-1), no variation; G/‖G‖ = I/√K and ⟨I, G*⟩ = K-1.
    fit = simplex_fit(haar(1, D, K, seed=2)[0].mT)
    assert fit.norm_variation == pytest.approx(0, abs=1e-14)
    assert fit.cosine_variation == pytest.approx(0, abs=1e-14)
    assert fit.cosine_excess == pytest.approx(1 / (K - 1), rel=1e-12)
    assert fit.simplex_distance == pytest.approx((2 - 2 * ((K - 1) / K) ** 0.5) ** 0.5, rel=1e-12)


def test_self_duality_at_its_ends():
    f, labels = frame(), torch.arange(K)
    # A common shift t of all rows, of size ‖t‖² K = ‖f‖², costs 2 - √2 and the softmax nothing.
    common = haar(1, D, D, seed=9)[0][:, 0]
    common = common - f.mT @ torch.linalg.pinv(f.mT) @ common
    common = common / common.norm() * f.norm() / K**0.5
    shifted = neural_collapse([(f, labels)], f + common)
    assert shifted.nc3 == pytest.approx((2 - 2**0.5) ** 0.5, rel=1e-12)
    assert shifted.nc3_centred < 1e-13
    assert neural_collapse([(f, labels)], -f).nc3 == pytest.approx(2, rel=1e-14)


def test_agreement_counts_single_samples():
    f = frame()
    labels = torch.arange(K)
    # A bias that hands every sample to class 2: the classifier agrees with the centres on it alone.
    bias = torch.zeros(K, dtype=torch.float64)
    bias[2] = 100.0
    assert neural_collapse([(f, labels)], f, bias).nc4 == pytest.approx(1 / K)


# An independent implementation, streams, merges, order --------------------------------------------


@pytest.mark.parametrize("sizes", [(40,) * K, (3, 200, 17, 1, 60)])
@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_against_the_definitions(sizes, batch):
    h, y = cloud(sizes)
    w, b = normal(K, D, seed=8), normal(K, seed=9)
    assert_same(streamed(h, y, w, b, batch), naive(h, y, w, b), rel=1e-11)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_a_common_offset_costs_only_its_digits(offset):
    # Sums of raw squares would lose offset² · u = 1e-4 of the scatter at 1e6.
    h, y = cloud((50,) * K)
    w = normal(K, D, seed=8)
    far = streamed(h + offset, y, w, None, 16)
    near = streamed(h, y, w, None, 16)
    assert far.nc1 == pytest.approx(near.nc1, rel=30 * offset * 2.3e-16)
    assert far.rank == K - 1


def test_merging_is_concatenation():
    h, y = cloud((3, 200, 17, 1, 60))
    w, b = normal(K, D, seed=8), normal(K, seed=9)
    whole = streamed(h, y, w, b, 10_000)
    # Parts that lack classes altogether, one of them empty.
    parts = [y < 2, (y >= 2) & (h[:, 0] > 0), (y >= 2) & (h[:, 0] <= 0), y > 9]
    collapse = NeuralCollapse(K)
    for part in parts:
        other = NeuralCollapse(K)
        other.update(h[part], y[part])
        collapse.merge(other)
    counted = [collapse.agreement(w, b) for _ in parts]
    for agreement, part in zip(counted, parts, strict=True):
        agreement.update(h[part])
    for other in counted[1:]:
        counted[0].merge(other)
    assert_same(collapse.result(w, b, agreement=counted[0]), whole, rel=1e-12)
    assert torch.equal(collapse.counts, torch.tensor([3, 200, 17, 1, 60]))


def test_before_any_sample_no_dimension_is_known():
    record = NeuralCollapse(3).result()
    assert (record.d, record.samples) == (0, 0)
    assert record.status == "no samples of classes 0, 1, 2"


def test_order_does_not_matter():
    h, y = cloud((3, 200, 17, 1, 60))
    w, b = normal(K, D, seed=8), normal(K, seed=9)
    order = torch.argsort(y)
    assert_same(streamed(h[order], y[order], w, b, 13), streamed(h, y, w, b, 13), rel=1e-12)


def test_rotations_and_scalings_leave_the_numbers():
    h, y = cloud((30, 20, 10, 40, 50))
    w, b = normal(K, D, seed=8), normal(K, seed=9)
    q = 3.7 * haar(1, D, D, seed=3)[0]
    # W q / ‖q‖²: the logits stay as they were.
    turned = streamed(h @ q, y, w @ q / 3.7**2, b, 50)
    assert_same(turned, streamed(h, y, w, b, 50), rel=1e-11)


def test_unbalanced_classes_weigh_as_documented():
    # Two classes on a line at ±1, scatter 0 in the one and 4 in the other with 3 of 4 samples:
    # Σ_W = 3 (pooled over samples), Σ_B = 1 (classes alike), NC1 = 3/2.
    h = torch.tensor([[1.0], [1.0], [-3.0], [-3.0], [-1.0], [1.0], [1.0], [-3.0]])
    h[4] = 1.0
    y = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    record = neural_collapse([(h, y)], torch.tensor([[1.0], [-1.0]]))
    assert record.nc1 == pytest.approx(1.5, rel=1e-14)
    assert (record.smallest_class, record.largest_class, record.samples) == (2, 6, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_widened_before_it_is_summed(dtype):
    h, y = cloud((50,) * K)
    w = normal(K, D, seed=8)
    low = streamed(h.to(dtype), y, w, None, 16)
    same = streamed(h.to(dtype).double(), y, w, None, 16)
    assert low.nc1 == same.nc1


def test_leading_dimensions_are_run_together():
    h, y = cloud((8,) * K)
    one, other = NeuralCollapse(K), NeuralCollapse(K)
    one.update(h, y)
    other.update(h.reshape(4, 10, D), y.reshape(4, 10))
    assert one.result() == other.result()


# Bad input and statuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(3, D), torch.tensor([0, 1, K]), "labels run from 0 to 5"),
        (torch.ones(3, D), torch.tensor([0, 1, -100]), "labels run from -100"),
        (torch.ones(3, D), torch.tensor([0.0, 1.0, 2.0]), "whole numbers"),
        (torch.ones(3, D), torch.tensor([0, 1]), "whole numbers"),
        (torch.ones(3, D + 1), torch.tensor([0, 1, 2]), f"{D} were expected"),
        (torch.ones(3), torch.tensor([0, 1, 2]), "expected a floating-point tensor"),
        (torch.ones(3, D, dtype=torch.int64), torch.tensor([0, 1, 2]), "floating-point"),
        (torch.full((3, D), torch.nan), torch.tensor([0, 1, 2]), "NaN"),
        (torch.full((3, D), torch.inf), torch.tensor([0, 1, 2]), "NaN"),
    ],
)
def test_bad_batches_are_refused_and_leave_no_trace(features, labels, message):
    collapse = NeuralCollapse(K)
    collapse.update(*cloud((8,) * K))
    before = collapse.result()
    with pytest.raises(InputError, match=message):
        collapse.update(features, labels)
    assert collapse.result() == before


@pytest.mark.parametrize(
    "vectors",
    [torch.ones(1, 4), torch.ones(4), torch.ones(2, 3, 4), torch.tensor([[1.0, math.nan], [1, 2]])],
    ids=["one", "no rows", "a batch", "not finite"],
)
def test_a_frame_is_fitted_to_two_or_more_finite_rows(vectors):
    with pytest.raises(InputError, match="two or more finite rows"):
        simplex_fit(vectors)


def test_wrong_classifiers_and_merges_are_refused():
    collapse = NeuralCollapse(K)
    with pytest.raises(InputError, match="no samples of classes 0, 1, 2, 3, 4"):
        collapse.agreement(torch.ones(K, D))
    collapse.update(*cloud((8,) * K))
    with pytest.raises(InputError, match="weight has shape"):
        collapse.result(torch.ones(D, K))
    with pytest.raises(InputError, match="bias has shape"):
        collapse.result(torch.ones(K, D), torch.ones(1))
    with pytest.raises(InputError, match="the classifier holds NaN"):
        collapse.result(torch.full((K, D), torch.nan))
    with pytest.raises(InputError, match="cannot be merged"):
        collapse.merge(NeuralCollapse(K + 1))
    with pytest.raises(InputError, match="different class means"):
        collapse.agreement(torch.ones(K, D)).merge(collapse.agreement(torch.zeros(K, D)))
    with pytest.raises(InputError, match="second pass"):
        neural_collapse(iter([]), torch.ones(K, D))
    with pytest.raises(InputError, match="1 classes"):
        NeuralCollapse(1)


def test_an_empty_class_is_a_status():
    h, y = cloud((8, 8, 8, 0, 8))
    record = neural_collapse([(h, y)], normal(K, D, seed=8))
    assert record.status == "no samples of class 3"
    assert record.nc1 is record.nc2_means is record.nc4 is None
    assert record.samples == 32
    assert NeuralCollapse(2).result().status == "no samples of classes 0, 1"


def test_equal_means_and_a_zero_classifier_are_statuses():
    labels = torch.arange(K).repeat(2)
    same = neural_collapse([(torch.ones(2 * K, D) / 3, labels)], torch.ones(K, D))
    assert same.status == "all class means agree"
    assert (same.rank, same.nc1, same.nc3) == (0, None, None)
    zero = neural_collapse([(frame().repeat(2, 1), labels)], torch.zeros(K, D))
    assert zero.status == "the classifier is zero"
    assert zero.nc1 is not None
    assert zero.nc3 is None


# Modules ------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(D, 9), torch.nn.BatchNorm1d(9), torch.nn.ReLU(), torch.nn.Dropout(0.5)
        )
        self.head = torch.nn.Linear(9, K)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net().double()
    net.body[1].running_mean.copy_(normal(9, seed=3))
    net.body[3].eval()
    return net


def test_of_module_measures_the_evaluating_network(net):
    h, y = cloud((8,) * K)
    state = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(h, y), batch_size=7)
    record = neural_collapse_of_module(net, loader, layer="head")
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not net.head._forward_pre_hooks
    features = copy.deepcopy(net).eval().body(h).detach()
    expected = naive(features, y, net.head.weight.detach(), net.head.bias.detach())
    assert_same(record, expected, rel=1e-10)


def test_of_module_takes_tuples_and_mappings(net):
    h, y = cloud((8,) * K)
    records = [
        neural_collapse_of_module(net, [(inputs, y)], layer="head")
        for inputs in (h, (h,), {"x": h})
    ]
    assert records[0] == records[1] == records[2]


def test_of_module_says_what_is_wrong(net):
    h, y = cloud((8,) * K)
    with pytest.raises(InputError, match="no module named 'fc'") as caught:
        neural_collapse_of_module(net, [(h, y)], layer="fc")
    assert "body.0, head" in caught.value.hint
    with pytest.raises(InputError, match="a ReLU, not a Linear"):
        neural_collapse_of_module(net, [(h, y)], layer="body.2")
    with pytest.raises(InputError, match="only once"):
        neural_collapse_of_module(net, iter([(h, y)]), layer="head")
    unused = torch.nn.Sequential(net)
    unused.spare = torch.nn.Linear(2, 2)
    unused.forward = net.forward
    with pytest.raises(InputError, match="ran 0 times"):
        neural_collapse_of_module(unused, [(h, y)], layer="spare")
    assert not net.head._forward_pre_hooks
    assert net.training
