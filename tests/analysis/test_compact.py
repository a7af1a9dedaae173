"""Few bytes, and what they stand for."""

import zlib

import numpy as np
import pytest
import torch

from lit_transformer.analysis.compact import (
    Store,
    depth,
    halved,
    pooled,
    pyramid,
    quantised,
    restored,
    signed_bytes,
    strongest,
    tiled,
)


def test_a_byte_is_the_root_of_a_weight() -> None:
    weights = torch.rand(50, 70, generator=torch.Generator().manual_seed(0)).softmax(-1)
    cells = quantised(weights)
    assert cells.dtype == np.uint8
    assert (restored(cells) - weights).abs().max() < 0.004
    assert quantised(torch.tensor([0.0, 1.0, 1 / 1024])).tolist() == [0, 255, 8]  # small weights are not lost


def test_levels_keep_the_largest() -> None:
    cells = np.random.default_rng(0).integers(0, 255, (130, 71)).astype(np.uint8)
    levels = pyramid(cells)
    assert [each.shape for each in levels] == [(130, 71), (65, 36), (33, 18)]
    assert len(levels) - 1 == depth((130, 71)) and depth((64, 64)) == 0 and depth((65, 3)) == 1
    assert levels[1][3, 5] == cells[6:8, 10:12].max() and levels[2].max() == cells.max()
    assert halved(cells[:3, :3])[1, 1] == cells[2, 2]


@pytest.mark.parametrize(("rows", "seen"), [(16, 100), (13, 77), (3, 5)])
def test_pooling_is_halving_many_times(rows: int, seen: int) -> None:
    weights = torch.rand(2, rows, seen, generator=torch.Generator().manual_seed(0))
    found = quantised(pooled(weights, 8, 100))
    for cells, head in zip(quantised(torch.nn.functional.pad(weights, (0, 100 - seen))), found, strict=True):
        assert (halved(halved(halved(cells))) == head).all()


def test_there_is_no_room_for_a_matrix_of_noise() -> None:
    cells = np.random.default_rng(0).integers(0, 255, (600, 600)).astype(np.uint8)
    data, _ = tiled(cells)
    assert tiled(cells, len(data)) == tiled(cells)
    assert tiled(cells, len(data) - 1) is None


def test_tiles_are_the_matrix() -> None:
    cells = np.zeros((300, 520), dtype=np.uint8)
    cells[10, 20], cells[299, 519] = 7, 9
    data, lengths = tiled(cells)
    assert len(lengths) == 6 and lengths[1] == 0 and lengths[0] > 0 and lengths[5] > 0
    first = np.frombuffer(zlib.decompress(data[: lengths[0]]), np.uint8).reshape(256, 256)
    assert first[10, 20] == 7 and first.sum() == 7


def test_strongest_links_and_vectors() -> None:
    weights = torch.tensor([[[0.1, 0.5, 0.4], [0.9, 0.0, 0.1]]])
    keys, cells = strongest(weights, 2)
    assert keys.tolist() == [[[1, 2], [0, 2]]]
    torch.testing.assert_close(restored(cells), torch.tensor([[[0.5, 0.4], [0.9, 0.1]]]), atol=0.004, rtol=0)
    weights = torch.rand(2, 3, 700, generator=torch.Generator().manual_seed(0))
    values, expected = weights.topk(5)
    keys, cells = strongest(weights, 5)  # looked for group by group
    assert (keys == expected.numpy()).all() and (cells == quantised(values)).all()
    keys, cells = strongest(torch.tensor([[[1.0]]]), 3)
    assert keys.tolist() == [[[0, 0, 0]]] and cells.tolist() == [[[255, 0, 0]]]
    vectors = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    scales, found = signed_bytes(vectors)
    assert (torch.from_numpy(found * scales[:, None]) - vectors).abs().max() <= vectors.abs().max() / 250


def test_a_store_knows_its_room() -> None:
    store = Store(1000)
    assert store.fits(600) and not store.fits(750)
    assert store.put(bytes(600)) == 0 and not store.fits(300)
    (element,) = store.elements()
    assert element.startswith('<script type="application/octet-stream" id="b0">') and len(element) < store.size + 64
    assert pytest.approx(store.size, abs=70) == 800
