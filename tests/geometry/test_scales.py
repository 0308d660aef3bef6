import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import neuron_scales, plane_scales
from geometry.planted import seeded


def test_neurons_are_balanced_and_a_relu_network_computes_the_same():
    generator = seeded()
    write = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    read = 3 * torch.randn(5, 6, dtype=torch.float64, generator=generator)
    result = neuron_scales((write**2).sum(1), (read**2).sum(0))
    new_write, new_read = result.scales[:, None] * write, read / result.scales
    torch.testing.assert_close((new_write**2).sum(1), (new_read**2).sum(0), rtol=1e-14, atol=0)
    x = torch.randn(4, 20, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(new_read @ (new_write @ x).relu(), read @ (write @ x).relu())


def test_dead_neurons_are_marked_and_kept():
    result = neuron_scales(torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert result.dead.tolist() == [True, True, True, False]
    assert result.scales.tolist() == [1.0] * 4


def test_scales_stay_in_range_where_their_fourth_power_does_not():
    result = neuron_scales(torch.tensor([1e-38]), torch.tensor([1e38]))
    assert result.scales.item() == pytest.approx(1e19, rel=1e-5)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_planes_are_balanced_and_rotary_scores_stay(layout):
    generator = seeded(1)
    d, heads = 6, 3
    query = torch.randn(heads, d, 8, dtype=torch.float64, generator=generator)
    key = 2 * torch.randn(heads, d, 8, dtype=torch.float64, generator=generator)
    j = torch.arange(d // 2)
    planes = torch.stack((j, j + d // 2) if layout == "half" else (2 * j, 2 * j + 1), dim=1)
    a, b = query @ query.mT, key @ key.mT
    result = plane_scales(a, b, planes)
    assert result.scales.shape == (heads, d // 2)
    scales = torch.ones(heads, d, dtype=torch.float64)
    scales[:, planes] = result.scales[:, :, None].expand(heads, d // 2, 2)
    query_new, key_new = scales[..., None] * query, key / scales[..., None]
    for new in (query_new, key_new):
        assert new.shape == query.shape
    traces = [
        (new @ new.mT).diagonal(dim1=-2, dim2=-1)[:, planes].sum(-1) for new in (query_new, key_new)
    ]
    torch.testing.assert_close(traces[0], traces[1], rtol=1e-13, atol=0)
    rotation = torch.eye(d, dtype=torch.float64)
    for plane, (first, second) in enumerate(planes.tolist()):
        angle = torch.tensor(0.3 * (plane + 1), dtype=torch.float64)
        rotation[first, first] = rotation[second, second] = angle.cos()
        rotation[first, second], rotation[second, first] = -angle.sin(), angle.sin()
    torch.testing.assert_close(query_new.mT @ rotation @ key_new, query.mT @ rotation @ key)


def test_a_dead_plane_and_a_shared_reader():
    a = torch.diag_embed(torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 3.0]]))
    result = plane_scales(a, 16 * torch.eye(4), torch.tensor([[0, 1], [2, 3]]))
    assert result.dead.tolist() == [[False, True], [False, False]]
    assert result.scales[0].tolist() == pytest.approx([32**0.25, 1.0])


def test_no_planes():
    empty = torch.zeros(0, 2, dtype=torch.int64)
    assert plane_scales(torch.eye(4), torch.eye(4), empty).scales.shape == (0,)


def test_bad_arguments_are_refused():
    eye = torch.eye(4)
    with pytest.raises(InputError, match="differ in shape"):
        neuron_scales(torch.ones(3), torch.ones(4))
    with pytest.raises(InputError, match="negative"):
        neuron_scales(-torch.ones(3), torch.ones(3))
    for planes in ([[0, 0]], [[0, 1], [1, 2]], [[0, 4]], [[-1, 0]]):
        with pytest.raises(InputError, match="planes repeat"):
            plane_scales(eye, eye, torch.tensor(planes))
    with pytest.raises(InputError, match="shape"):
        plane_scales(eye, eye, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="integer"):
        plane_scales(eye, eye, torch.tensor([[0.0, 1.5]]))
