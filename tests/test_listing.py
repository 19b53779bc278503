import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_ranking.datasets import (
    limit_classes,
    read_classes,
    read_folder,
    read_partition,
    read_positive_pairs,
    relative_prefix,
    split_classes,
    with_folder_categories,
    write_classes,
)
from deep_ranking.files import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def items_of(data):
    return dict(zip(data.paths, [data.items.names[code] for code in data.items.codes], strict=True))


def categories_of(data):
    names = [data.categories.names[code] for code in data.categories.codes]
    return dict(zip(data.paths, names, strict=True))


def pairs_of(data):
    return [(data.paths[query], data.paths[positive]) for query, positive in data.pairs]


# Folders


def test_class_folders_are_what_was_found(image_tree):
    data = read_folder(image_tree)
    assert {path: path.split("/")[0] for path in data.paths} == items_of(data)
    assert data.categories is None and data.pairs is None
    assert data.notes == (
        "Folders lie deeper than these 4 classes: --label parent takes the folder that holds each "
        "image (5 classes).",
        "1 image left out: in no folder of a class.",
        "5 files left out: no image by the name (2 .txt, 1 without extension, 1 .part, 1 .md); "
        "--by_content takes those that are images all the same.",
        "1 folder without images (empty).",
        "3 hidden files and folders left out.",
    )
    assert len(data) == 11


def test_items_and_categories_of_read_folder(tmp_path, level=1):
    touch(
        tmp_path, "a/x/1/p.jpg", "a/x/1/q.jpg", "a/x/2/p.jpg", "a/y/p.jpg", "b/p.jpg", "b/1/x/r.png"
    )
    data = read_folder(tmp_path, level=1)
    assert items_of(data) == {
        "a/x/1/p.jpg": "a/x/1",
        "a/x/1/q.jpg": "a/x/1",
        "a/x/2/p.jpg": "a/x/2",
        "a/y/p.jpg": "a/y",
        "b/1/x/r.png": "b/1/x",
        "b/p.jpg": "b",
    }
    assert set(categories_of(data).values()) == {"a", "b"}
    deeper = categories_of(read_folder(tmp_path, level=2))
    assert deeper["a/x/2/p.jpg"] == "a/x" and deeper["a/y/p.jpg"] == "a/y"
    assert deeper["b/p.jpg"] == "b" and deeper["b/1/x/r.png"] == "b/1"
    with pytest.raises(InputError, match="level must be 1 or more"):
        read_folder(tmp_path, level=0)


def test_a_cycle_of_links_ends_and_is_told(tmp_path):
    touch(tmp_path, "a/x/1.jpg", "b/1.jpg")
    os.symlink("..", tmp_path / "a" / "x" / "up")
    os.symlink("../..", tmp_path / "a" / "x" / "root")
    data = read_folder(tmp_path, level=1)
    assert data.paths == ["a/x/1.jpg", "b/1.jpg"]
    assert data.notes == ("2 links left out: to a folder that is listed already.",)
    os.symlink("self", tmp_path / "b" / "self")  # not even a folder can be found behind it
    os.symlink("there.jpg", tmp_path / "b" / "here.jpg")
    os.symlink("here.jpg", tmp_path / "b" / "there.jpg")
    assert read_folder(tmp_path, level=1).paths[:2] == data.paths


# Class files


def test_class_file_with_and_without_a_line_of_names(tmp_path):
    touch(tmp_path, "a, b.jpg", "c.jpg", "in/d.jpg")
    rows = '"a, b.jpg",red,warm\nc.jpg,red,warm\nin/d.jpg,blue,cold\n'
    plain = read_classes(write(tmp_path / "plain.csv", rows))
    named = read_classes(write(tmp_path / "named.csv", "\ufeffPath,Label,Category\n" + rows))
    moved = "category,label,path\nwarm,red,c.jpg\ncold,blue,in/d.jpg\n"
    assert (
        items_of(plain)
        == items_of(named)
        == {"a, b.jpg": "red", "c.jpg": "red", "in/d.jpg": "blue"}
    )
    assert categories_of(plain)["in/d.jpg"] == "cold"
    assert categories_of(read_classes(write(tmp_path / "moved.csv", moved)))["c.jpg"] == "warm"
    assert plain.root == tmp_path and plain.splits is None
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    data = read_classes(write(elsewhere / "l.csv", f"c.jpg,x\n{tmp_path}/in/d.jpg,y\n"), tmp_path)
    assert data.paths == ["c.jpg", "in/d.jpg"]


def test_empty_lines_and_blanks_before_quotes(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    text = "path,label\n\na.jpg,x\n\nb.jpg,y\n\n\n"
    assert items_of(read_classes(write(tmp_path / "l.csv", text))) == {"a.jpg": "x", "b.jpg": "y"}
    with pytest.raises(InputError, match=r"l.csv:2: a blank before a quote; remove the blank"):
        read_classes(write(tmp_path / "l.csv", 'a.jpg,x\nb.jpg, "x"\n'))


def test_written_class_files_are_read_again(tmp_path):
    touch(tmp_path, "images/a, b.jpg", "images/c.jpg", "images/e.jpg")
    text = 'path,label,category,split\n"a, b.jpg",r,w,train\nc.jpg,r,w,test\ne.jpg,b,k,train\n'
    data = read_classes(write(tmp_path / "images" / "l.csv", text))
    prefix = relative_prefix(data.root, tmp_path)
    assert prefix == "images/"
    write_classes(tmp_path / "partition.csv", data, prefix)
    assert (tmp_path / "partition.csv").read_text() == (
        'path,label,category,split\n"images/a, b.jpg",r,w,train\nimages/c.jpg,r,w,test\n'
        "images/e.jpg,b,k,train\n"
    )
    again = read_partition(tmp_path / "partition.csv")
    assert again.splits.tolist() == ["train", "test", "train"]
    assert relative_prefix(tmp_path, tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c.jpg,x\nmissing.jpg,x\n", r"l.csv:2: no such image missing.jpg in .*--input_directory"),
        ("c.jpg,x\nd.jpg\n", r"l.csv:2: expected path,label\[,category\]\[,split\], received 1"),
        ("c.jpg,x\nc.jpg,y\n", "l.csv:2: image c.jpg is of two items: x in line 1, y here"),
        ("c.jpg,\n", "l.csv:1: the item is empty"),
        ("c.jpg,x\n.,x\n", r"l.csv:2: no such image \. in"),
        ("path,label\n", "l.csv: names no images"),
        ("c.jpg,x,k\nd.jpg,x,m\n", "l.csv:2: item x has two categories: k and m"),
        ("c.jpg,x,k\nd.jpg,y,\n", "l.csv: item y has no category"),
        ('c.jpg,"x\n', "l.csv:1: "),
    ],
)
def test_bad_class_files(tmp_path, text, message):
    touch(tmp_path, "c.jpg", "d.jpg")
    with pytest.raises(InputError, match=message):
        read_classes(write(tmp_path / "l.csv", text))


def test_class_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such"):
        read_classes(tmp_path / "l.csv")


# Pair files


def test_pair_file(tmp_path):
    touch(tmp_path, "q1.jpg", "q2.jpg", "s/1.jpg", "s/2.jpg")
    text = "query,positive,item\nq1.jpg,s/1.jpg,shoe\nq1.jpg,q2.jpg,shoe\nq2.jpg,s/1.jpg,shoe\n"
    data = read_positive_pairs(write(tmp_path / "p.csv", text))
    assert pairs_of(data) == [("q1.jpg", "s/1.jpg"), ("q1.jpg", "q2.jpg"), ("q2.jpg", "s/1.jpg")]
    assert items_of(data) == dict.fromkeys(("q1.jpg", "s/1.jpg", "q2.jpg"), "shoe")
    part = data.select(np.array([True, False, True]))  # without s/1.jpg
    assert pairs_of(part) == [("q1.jpg", "q2.jpg")]
    assert data.select(np.array([True, True, False])).pairs.tolist() == [[0, 1]]
    assert data.select(np.array([False, True, False])).pairs is None


@pytest.mark.parametrize("chosen", [[0, 2], [0, 1, 2], [True, True]])
def test_images_are_not_chosen_by_number(tmp_path, chosen):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    with pytest.raises(InputError, match="chosen must be 3 booleans"):
        read_folder(tmp_path).select(np.array(chosen))


def test_category_is_that_of_the_positives_folders(tmp_path):
    touch(tmp_path, "customers/1.jpg", "shop/hat/1.jpg", "shop/shoe/2.jpg")
    text = "customers/1.jpg,shop/hat/1.jpg,a\n"
    data = with_folder_categories(read_positive_pairs(write(tmp_path / "p.csv", text)), 2)
    assert set(categories_of(data).values()) == {"shop/hat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q.jpg,s.jpg,1\nq.jpg,gone.jpg,1\n", "p.csv:2: no such image gone.jpg"),
        ("q.jpg,q.jpg,1\n", "p.csv:1: query and positive are the same"),
        ("q.jpg,s.jpg\n", "p.csv:1: expected query,positive,item"),
    ],
)
def test_bad_pair_files(tmp_path, text, message):
    touch(tmp_path, "q.jpg", "s.jpg")
    with pytest.raises(InputError, match=message):
        read_positive_pairs(write(tmp_path / "p.csv", text))


# Partition lists

CONSUMER_TO_SHOP = """\
5
image_pair_name_1 image_pair_name_2 item_id evaluation_status
img/DRESSES/Skirt/id_1/comsumer_01.jpg          img/DRESSES/Skirt/id_1/shop_01.jpg id_1 train
img/DRESSES/Skirt/id_1/comsumer_02.jpg          img/DRESSES/Skirt/id_1/shop_01.jpg id_1 train
img/DRESSES/Skirt/id_2/comsumer_01.jpg          img/DRESSES/Skirt/id_2/shop_01.jpg id_2 train
img/TOPS/Tee/id_3/comsumer_01.jpg               img/TOPS/Tee/id_3/shop_01.jpg      id_3 val
img/TOPS/Tee/id_4/comsumer_01.jpg               img/TOPS/Tee/id_4/shop_01.jpg      id_4 test
"""
IN_SHOP = """\
6
image_name item_id evaluation_status
img/WOMEN/Tees/id_7/01_1_front.jpg id_7 train
img/WOMEN/Tees/id_7/01_2_side.jpg  id_7 train
img/WOMEN/Tees/id_8/01_1_front.jpg id_8 query
img/WOMEN/Tees/id_8/01_2_side.jpg  id_8 gallery
img/WOMEN/Tees/id_8/01_3_back.jpg  id_8 gallery
img/MEN/Pants/id_9/01_1_front.jpg  id_9 gallery
"""


def partition(root, text):
    """The list as DeepFashion has it, in a folder of its own, and the images that it names."""
    touch(root, *(word for word in text.split() if word.startswith("img/")))
    (root / "Eval").mkdir(exist_ok=True)
    return write(root / "Eval" / "list_eval_partition.txt", text)


def test_consumer_to_shop_list(tmp_path):
    data = read_partition(partition(tmp_path, CONSUMER_TO_SHOP), tmp_path)
    train = data.select(data.splits == "train")
    short = [tuple(path.split("Skirt/")[1] for path in pair) for pair in pairs_of(train)]
    assert short == [
        ("id_1/comsumer_01.jpg", "id_1/shop_01.jpg"),
        ("id_1/comsumer_02.jpg", "id_1/shop_01.jpg"),
        ("id_2/comsumer_01.jpg", "id_2/shop_01.jpg"),
    ]
    assert {path.split("/")[3] for path in data.paths} == set(data.items.names)
    assert set(categories_of(train).values()) == {"img/DRESSES/Skirt"}
    assert sorted(data.splits.tolist()) == ["test"] * 2 + ["train"] * 5 + ["val"] * 2
    wide = read_partition(partition(tmp_path, CONSUMER_TO_SHOP), tmp_path, level=2)
    assert set(wide.categories.names) == {"img/DRESSES", "img/TOPS"}


def test_in_shop_list(tmp_path):
    data = read_partition(partition(tmp_path, IN_SHOP), tmp_path)
    assert data.select(data.splits == "train").pairs is None
    test = data.select(data.splits == "test")
    query = "img/WOMEN/Tees/id_8/01_1_front.jpg"
    assert pairs_of(test) == [
        (query, "img/WOMEN/Tees/id_8/01_2_side.jpg"),
        (query, "img/WOMEN/Tees/id_8/01_3_back.jpg"),
    ]
    assert len(test) == 4


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("5\n", "6\n", "partition.txt:1: says 6 lines, and 5 follow"),
        ("evaluation_status", "status", "partition.txt:2: expected the columns image_pair"),
        (" val", "", "partition.txt:6: expected 4 fields, received 3"),
    ],
)
def test_bad_partition_lists(tmp_path, before, after, message):
    file = partition(tmp_path, CONSUMER_TO_SHOP)
    write(file, CONSUMER_TO_SHOP.replace(before, after, 1))
    with pytest.raises(InputError, match=message):
        read_partition(file, tmp_path)


def test_an_image_in_two_splits(tmp_path):
    second = CONSUMER_TO_SHOP.splitlines()[3]
    text = CONSUMER_TO_SHOP.replace(second, second.replace("train", "test"))
    with pytest.raises(
        InputError, match=r":4: image .*id_1/shop_01.jpg is in two splits: train in line 3, test"
    ):
        read_partition(partition(tmp_path, text), tmp_path)
    in_shop = IN_SHOP.replace("01_2_side.jpg  id_8", "01_1_front.jpg  id_8")
    with pytest.raises(InputError, match="in two splits: query in line 5, gallery here"):
        read_partition(partition(tmp_path, in_shop), tmp_path)


def test_an_image_in_two_splits_by_two_ways_to_write_it(tmp_path):
    touch(tmp_path, "1.jpg", "a/1.jpg", "a/2.jpg", "far/b/1.jpg", "far/1.jpg")
    os.symlink("far/b", tmp_path / "link")
    for other in ("./a/1.jpg", "a//1.jpg", "a/../a/1.jpg", f"{tmp_path}/a/../a/1.jpg"):
        text = f"path,label,split\na/1.jpg,x,train\na/2.jpg,x,train\n{other},x,test\n"
        with pytest.raises(InputError, match=r"l.csv:4: image a/1.jpg is in two splits: train in"):
            read_partition(write(tmp_path / "l.csv", text))
    # What follows a link leads back from where the link leads: far/1.jpg, and not 1.jpg.
    text = "path,label,split\nlink/../1.jpg,x,train\n"
    assert read_partition(write(tmp_path / "l.csv", text)).paths == ["link/../1.jpg"]


CATEGORIES = ("img/DRESSES/Skirt", "img/TOPS/Tee", "img/TOPS/Blouse")


@settings(max_examples=25)
@given(st.data())
def test_lists_of_any_shops_are_read_as_they_are(tmp_path_factory, data):
    """Consumer-to-shop: numbered folders, columns padded with blanks, items in any order."""
    root = tmp_path_factory.mktemp("shops")
    rows, made_of, numbers = [], {}, st.integers(1, 2)
    for number in data.draw(st.lists(st.integers(1, 99_999), min_size=1, max_size=8, unique=True)):
        item = f"id_{number:08}"
        folder = f"{data.draw(st.sampled_from(CATEGORIES))}/{item}"
        split = data.draw(st.sampled_from(("train", "val", "test")))
        made_of[item] = folder.rsplit("/", 1)[0], split
        shops = [f"{folder}/shop_{shop + 1:02}.jpg" for shop in range(data.draw(numbers))]
        for photo in range(data.draw(numbers)):
            query = f"{folder}/comsumer_{photo + 1:02}.jpg"
            rows += [(query, shop, item, split) for shop in shops]
    lines = [" ".join(f"{field:<60}" for field in row).rstrip() for row in rows]
    head = [str(len(rows)), "image_pair_name_1 image_pair_name_2 item_id evaluation_status"]
    found = read_partition(partition(root, "\n".join([*head, *lines]) + "\n"), root)
    assert pairs_of(found) == [(query, shop) for query, shop, _, _ in rows]
    assert set(found.paths) == {path for row in rows for path in row[:2]}
    items, categories = items_of(found), categories_of(found)
    for path, split in zip(found.paths, found.splits.tolist(), strict=True):
        assert items[path] in path
        assert (categories[path], split) == made_of[items[path]]


def test_what_is_no_partition_list(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="not a partition list"):
        read_partition(write(tmp_path / "l.csv", "a.jpg,x\n"))
    with pytest.raises(InputError, match="no such partition list"):
        read_partition(tmp_path / "missing.txt")
    with pytest.raises(InputError, match=r"no such image img/.* in .*; name the folder"):
        read_partition(partition(tmp_path, CONSUMER_TO_SHOP))  # paths start a folder above


# Limits


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 9))
def test_limits_leave_classes_of_these_sizes(tmp_path_factory, sizes, fewest, most):
    data = made_up(sizes)
    expected = [min(size, most) for size in sizes if size >= fewest]
    if not expected:
        with pytest.raises(InputError, match="no class has so many images"):
            limit_classes(data, fewest=fewest, most=most)
        return
    left = limit_classes(data, fewest=fewest, most=most)
    assert [size for size in left.items.sizes().tolist() if size] == expected
    assert set(left.paths) <= set(data.paths)


def made_up(sizes):
    from pathlib import Path

    from deep_ranking.datasets import LabelledImages, Labels

    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    paths = [f"{label}/{number}.jpg" for number, label in enumerate(labels)]
    return LabelledImages(
        Path("r"), paths, Labels(labels, [str(each) for each in range(len(sizes))])
    )


def test_images_that_stay_are_spread_evenly():
    left = limit_classes(made_up([10, 3]), most=4)
    # 0, 10/4, 20/4 and 30/4, rounded down; of three images all.
    assert left.paths == [
        "0/0.jpg",
        "0/2.jpg",
        "0/5.jpg",
        "0/7.jpg",
        "1/10.jpg",
        "1/11.jpg",
        "1/12.jpg",
    ]


# Splits


@given(st.data())
def test_parts_never_share_a_class_or_copies(data):
    num_classes = data.draw(st.integers(6, 20))
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=num_classes, max_size=num_classes))
    classes = np.repeat(np.arange(num_classes), sizes)
    together = np.arange(len(classes))
    copies = data.draw(st.lists(st.integers(0, len(classes) - 1), max_size=3))
    together[copies] = together[0]
    try:
        part = split_classes(
            classes, (0.6, 0.2, 0.2), data.draw(st.integers(0, 9)), together=together
        )
    except InputError:
        assert num_classes - len(set(classes[copies])) < 8  # too many classes became one
        return
    for labels in (classes, together):
        for label in np.unique(labels):
            assert len(set(part[labels == label])) == 1
    for number in range(3):
        assert len(set(classes[part == number])) >= 2


def test_parts_have_their_shares():
    classes = np.repeat(np.arange(400), 5)
    part = split_classes(classes, (0.8, 0.1, 0.1), 3)
    np.testing.assert_allclose(np.bincount(part) / len(part), (0.8, 0.1, 0.1), atol=0.01)
    np.testing.assert_array_equal(split_classes(classes, (0.8, 0.1, 0.1), 3), part)
    assert not np.array_equal(split_classes(classes, (0.8, 0.1, 0.1), 4), part)


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.1, -0.1), (0.0, 1.0)])
def test_shares_that_are_none(shares):
    with pytest.raises(InputError, match="shares above 0 with a sum of 1"):
        split_classes(np.arange(9), shares, 0)


def test_too_few_classes_to_split():
    with pytest.raises(InputError, match="5 classes are too few for 3 parts of two or more"):
        split_classes(np.arange(5), (0.4, 0.3, 0.3), 0)
    together = np.array([0, 0, 0, 0, 4, 5])
    with pytest.raises(InputError, match=r"6 classes \(3 when copies stay together; see --no-keep"):
        split_classes(np.arange(6), (0.4, 0.3, 0.3), 0, together=together)
