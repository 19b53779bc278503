import itertools

import numpy as np
import pytest
from PIL import Image

from deep_ranking.images import near_copies
from deep_ranking.images.near_copies import (
    GLANCE,
    MAX_HASH_BITS,
    group_hashes,
    near_copy_groups,
    near_copy_pairs,
)


def picture(seed):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return small.resize((96, 96), Image.Resampling.BICUBIC)


def test_copies_and_near_copies_are_found_and_others_are_not(tmp_path):
    def save(name, image, **options):
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    first, second = picture(0), picture(1)
    gray = first.convert("L")
    files = [
        save("a.png", first),
        save("copy of a.png", first),
        save("a, smaller.jpg", first.resize((70, 70)), quality=70),
        save("b.png", second),
        save("a, gray.png", gray),  # the same hash, other colours
        save("plain red.png", Image.new("RGB", (64, 64), (200, 0, 0))),
        save("plain blue.png", Image.new("RGB", (64, 64), (0, 0, 200))),
        save("c.png", picture(2)),
    ]
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "broken too.png").write_bytes(b"")
    files += [str(tmp_path / "broken.png"), str(tmp_path / "broken too.png")]
    groups, num_unreadable = near_copy_groups(files)
    assert num_unreadable == 2
    assert len(set(groups[:3])) == 1
    assert len(set(groups.tolist())) == 8  # all others are alone


def test_pairs_are_near_copies_by_the_same_rule(tmp_path):
    first, second = picture(0), picture(1)
    first.save(tmp_path / "a.png")
    first.resize((70, 70)).save(tmp_path / "smaller.jpg", quality=70)
    first.convert("L").save(tmp_path / "gray.png")
    second.save(tmp_path / "b.png")
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "broken too.png").write_bytes(b"")
    pairs = {
        ("a.png", "smaller.jpg"): True,
        ("a.png", "b.png"): False,
        ("smaller.jpg", "a.png"): True,
        ("a.png", "gray.png"): False,
        ("broken.png", "broken too.png"): False,
        ("b.png", "b.png"): True,
    }
    columns = [[str(tmp_path / name) for name in column] for column in zip(*pairs, strict=True)]
    assert near_copy_pairs(*columns).tolist() == list(pairs.values())
    assert near_copy_pairs([], []).tolist() == []


@pytest.mark.parametrize("pairs_at_once", [near_copies.PAIRS_AT_ONCE, 7])
def test_groups_of_hashes_are_those_of_all_pairs(monkeypatch, pairs_at_once):
    monkeypatch.setattr(near_copies, "PAIRS_AT_ONCE", pairs_at_once)
    rng = np.random.default_rng(5)
    base = rng.integers(0, 256, (30, 8), np.uint8)
    bits = np.unpackbits(np.repeat(base, 6, axis=0), axis=1)
    for row in bits:  # 0 to 4 bits turned
        turned = rng.choice(64, rng.integers(0, MAX_HASH_BITS + 2), replace=False)
        row[turned] ^= 1
    glances = np.repeat(rng.integers(0, 256, (30, 3 * GLANCE**2), np.uint8), 6, axis=0)
    glances[::7] = 255 - glances[::7]
    hashes = np.packbits(bits, axis=1)
    expected = list(range(len(bits)))  # by repeated joining of all near pairs
    for _ in range(6):
        for i, j in itertools.combinations(range(len(bits)), 2):
            near = (bits[i] != bits[j]).sum() <= MAX_HASH_BITS
            if near and np.abs(glances[i] - glances[j].astype(int)).mean() <= 10:
                expected[i] = expected[j] = min(expected[i], expected[j])
    groups = group_hashes(hashes, glances)
    pairs = set(zip(expected, groups.tolist(), strict=True))
    assert len(pairs) == len(set(expected)) == len(set(groups.tolist()))
    assert 30 < len(pairs) < 180
