import base64
import io
import itertools
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError
from deep_ranking.files.html import escaped, table
from deep_ranking.metrics import pair_metrics
from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings
from deep_ranking.model.calibration import Calibration
from deep_ranking.reports.page.figures import distances
from deep_ranking.reports.page.hard_negatives import in_class_negatives, precision_over_shares
from deep_ranking.reports.page.html import page, section
from deep_ranking.reports.page.label_errors import (
    Confusion,
    Duplicate,
    class_confusions,
    duplicates_across_classes,
    likely_mislabelled,
)
from deep_ranking.reports.page.sections import write_report
from deep_ranking.reports.plots import plot_distances
from deep_ranking.training.history import read_history

LABELS = np.array(["a", "a", "b", "b", "c"])


def test_a_suspect_fits_another_class_better():
    rng = np.random.default_rng(3)
    rows = np.repeat(np.eye(3, 6), 8, axis=0) + rng.normal(scale=0.05, size=(24, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.repeat(["a", "b", "c"], 8)
    labels[[3, 20]] = ["c", "a"]
    cosines = rows @ rows.T
    suspects = likely_mislabelled(rows.astype(np.float32), labels)
    assert {(each.row, each.label, each.proposed) for each in suspects} == {
        (3, "c", "a"),
        (20, "a", "c"),
    }
    for each in suspects:
        others = np.flatnonzero(labels == each.proposed)
        assert each.witness == others[np.argmax(cosines[each.row, others])]
        assert each.evidence.startswith(f"7 of its 10 nearest are {each.proposed}; the nearest ")
    assert likely_mislabelled(rows.astype(np.float32), labels, limit=1) == suspects[:1]


def test_duplicates_are_pairs_of_two_classes_each_once():
    neighbours = np.array([[1, 2], [0, 4], [0, 3], [2, 4], [1, 3]])
    distances = np.array([[0.01, 0.03], [0.01, 0.02], [0.03, 0.01], [0.01, 0.05], [0.02, 0.05]])
    # 0-1 and 2-3 are of one class; 1-4 and 0-2 are seen from both ends; 3-4 is too far.
    arguments = LABELS, neighbours, distances
    found = duplicates_across_classes(*arguments, below=0.05)
    assert found == [Duplicate(1, 4, 0.02), Duplicate(0, 2, 0.03)]
    assert duplicates_across_classes(*arguments, below=0.05, limit=1) == found[:1]
    assert duplicates_across_classes(*arguments, below=0.02) == []


def test_a_duplicate_seen_from_one_end_only_counts():
    neighbours = np.array([[2], [0], [3], [2], [3]])
    found = duplicates_across_classes(LABELS, neighbours, np.zeros((5, 1)), below=0)
    assert found == [Duplicate(0, 2, 0.0), Duplicate(3, 4, 0.0)]


def test_confusions_count_the_nearest_wrong_image():
    neighbours = np.array([[1, 4, 2], [0, 2, 4], [3, 4, 0], [2, 4, 0], [2, 3, 0]])
    # a: 0 -> c, 1 -> b.  b: 2 -> c, 3 -> c.  c is a class of one.
    confusions = class_confusions(LABELS, neighbours)
    assert confusions == [
        Confusion("b", "c", 2, 1.0),
        Confusion("a", "b", 1, 0.5),
        Confusion("a", "c", 1, 0.5),
    ]
    assert class_confusions(LABELS, neighbours, limit=2) == confusions[:2]


def test_an_image_with_no_wrong_neighbour_is_confused_with_no_class():
    neighbours = np.array([[1], [0], [3], [0], [0]])
    assert class_confusions(LABELS, neighbours) == [Confusion("b", "a", 1, 0.5)]


def test_in_class_negatives_are_of_the_category_where_there_are_any():
    classes = ["bags/red", "bags/blue", "bags/old/green", "shoes/x", "bags/black"]
    others, words = in_class_negatives(classes, np.eye(5))
    assert [each.tolist() for each in others] == [[1, 4], [0, 4], [], [], [0, 1]]
    assert "category" in words


def test_in_class_negatives_are_of_the_nearest_class_elsewhere():
    means = np.array([[0.0], [1.0], [5.0], [3.5]])
    others, words = in_class_negatives(["a", "b/c", "d", "e"], means)
    assert [each.tolist() for each in others] == [[1], [0], [3], [2]]
    assert "nearest other class" in words


def test_precision_over_shares_mixes_both_kinds_of_negatives():
    # Classes 0 and 1 lie together, so that half of all in-class triplets are in order; 2 and 3
    # likewise, far away, so that all others are.
    rng = np.random.default_rng(0)
    labels = np.repeat(["p", "q", "r", "s"], 100)
    embeddings = rng.normal(size=(400, 3)) + 100.0 * np.repeat([[0], [1]], 200, axis=0)
    others = [np.array([other]) for other in (1, 0, 3, 2)]
    found = precision_over_shares(embeddings, labels, others, [0, 0.5, 1])
    assert found[0] == (1, 1, 1)
    assert found[2].mean == pytest.approx(0.5, abs=0.05)
    assert found[1].mean == pytest.approx((found[0].mean + found[2].mean) / 2)
    assert found[2].low < found[2].mean < found[2].high


def test_precision_needs_negatives_of_both_kinds():
    labels, embeddings = np.array(["p", "p", "q"]), np.eye(3)
    assert precision_over_shares(embeddings, labels, [np.array([1]), np.array([0])], [0]) is None


class Page(HTMLParser):
    """What a page holds: tags in order, open tags at the end, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


NAMES = ('<script>alert("1")</script>', "Q&A 'x' $y_$", "plain")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of six images, in groups; one image lies in the wrong group."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for number, name in enumerate(NAMES):
        for image in range(6):
            path = root / f'{number}{image} <b>&amp;"quoted".png'
            pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            paths.append(str(path))
            labels.append(name)
    embeddings = np.repeat(np.eye(3, 4), 6, axis=0) + rng.normal(scale=0.05, size=(18, 4))
    embeddings[0] = embeddings[7] + 1e-4
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return EmbeddedImages(paths, np.array(labels), embeddings.astype(np.float32))


@pytest.fixture(scope="module")
def report(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    history = [
        {"epoch": 0, "val_loss": 0.5, "val_recall_at_1": 0.1},
        {"epoch": 1, "loss": 0.4, "val_loss": 0.3, "something_new": 2.0},
    ]
    findings = write_report(
        path, evaluate_embeddings(images), images, title="<h1>&", history=history, seed=0
    )
    return path.read_text(encoding="utf-8"), findings


def test_the_report_finds_the_image_in_the_wrong_group(report, images):
    text, findings = report
    assert [(each.row, each.label, each.proposed, each.witness) for each in findings.suspects] == [
        (0, NAMES[0], NAMES[1], 7)
    ]
    assert findings.duplicates[0][:2] == (0, 7)
    words = "".join(Page(text).words)
    wrong, like = (os.path.basename(images.paths[row]) for row in (0, 7))
    assert f"labelled {NAMES[0]} {wrong}like {NAMES[1]}? {like}" in words


def test_the_report_has_every_section_and_closes_every_tag(report):
    found = Page(report[0])
    assert found.open == []
    sections = [attributes["id"] for tag, attributes in found.tags if tag == "section"]
    assert sections == [
        "summary",
        "examples",
        "map",
        "worst-and-best-queries",
        "likely-mislabelled",
        "near-duplicates-across-classes",
        "classes",
        "confusions",
        "all-figures",
        "distances",
        "how-far-probabilities-can-be-trusted",
        "recall",
        "hard-negatives",
        "training",
    ]
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections]


def test_nothing_in_the_report_leaves_it(report):
    found = Page(report[0])
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form", "video", "source"}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "action", "poster", "background"):
            assert attributes.get(name, "#").startswith(("#", "data:")), tag
    (style,) = re.findall("<style.*?>(.*?)</style>", report[0], re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    elsewhere = re.sub("url\\(#[\\w-]+\\)|http-equiv", "", report[0])  # parts of the same picture
    assert not re.search("url\\(|https?:|xlink|@font-face", elsewhere)
    policies = [each["content"] for tag, each in found.tags if "http-equiv" in each]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_picture_of_the_report_can_be_seen(report):
    count = 0
    for tag, attributes in Page(report[0]).tags:
        if tag == "img":
            (data,) = re.fullmatch("data:image/jpeg;base64,(.*)", attributes["src"]).groups()
            with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
                low, high = image.convert("L").getextrema()
                assert low < high
            assert attributes["title"]
            # The pictures of the map have one description for all of them.
            assert bool(attributes["alt"]) == ("style" not in attributes)
            count += 1
    # Ten of each of 8 examples, of 5 worst and of 5 best; the map; a suspect; a duplicate.
    assert count >= 10 * 18 + 18 + 2 + 2
    charts = [each for tag, each in Page(report[0]).tags if tag == "svg" and "role" in each]
    # Distances, recall, negatives; loss, recall and what is new in training.
    assert len({each["aria-label"] for each in charts}) == len(charts) == 6


def test_charts_are_drawn_in_the_colours_and_the_type_of_the_page(report):
    charts = re.findall(r"<svg viewBox[^>]*role=.*?</svg>", report[0], re.DOTALL)
    used = set()
    for chart in charts:
        assert "font-family" not in chart and "<text" in chart
        colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", chart)
        names = [re.fullmatch(r"var\(--(\w+), #[0-9a-f]{6}\)", each) for each in colours]
        assert {each for each, name in zip(colours, names, strict=True) if not name} <= {"none"}
        used |= {name[1] for name in names if name}
    style = re.search("<style>(.*?)</style>", report[0], re.DOTALL)[1]
    assert {"accent", "ink", "quiet", "line"} <= used
    assert all(style.count(f"--{name}: #") == 2 for name in used)  # light and dark
    ids = re.findall(r'\bid="([^"]+)"', report[0])
    assert len(ids) == len(set(ids))


def test_every_section_says_how_to_read_it_and_headings_come_in_order(report):
    for part in report[0].split("<section ")[1:]:
        how = re.search(r'</h2>\n<p class="how">(.+?)</p>', part)[1]
        assert len(how.split()) > 10 and how.endswith("."), how
    levels = [int(tag[1]) for tag, _ in Page(report[0]).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[:2] == [1, 2] and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_last_column_of_a_table_is_a_figure_and_not_its_meaning(report):
    """The meaning stands below the name, so a narrow screen loses nothing."""
    table = report[0].split('id="all-figures"')[1].split("</table>")[0]
    heads = re.findall('<th scope="col">(.*?)</th>', table)
    assert heads == ["metric", "value", "95 % interval"]
    assert "recall@1<small>queries whose nearest image is of their class</small>" in table


def test_worst_and_best_queries_come_in_order_with_hits_and_misses(report, images):
    values = evaluate_embeddings(images).per_query["mean_average_precision"]
    names = [os.path.basename(path) for path in images.paths]
    label_of = dict(zip(names, images.labels, strict=True))
    part = report[0].split('<section id="worst-and-best-queries">')[1].split("</section>")[0]
    worst, best = [], []
    for heading in part.split("<h3>")[1:]:
        pictures = [each for tag, each in Page("<h3>" + heading).tags if tag == "img"]
        query, *nearest = [each["alt"] for each in pictures]
        (worst if heading.startswith("Worst: ") else best).append(values[names.index(query)])
        kinds = ["hit" if label_of[path] == label_of[query] else "miss" for path in nearest]
        assert [each["class"] for each in pictures[1:]] == kinds
    assert worst == sorted(values)[:5]
    assert best == sorted(values)[:-6:-1]


def test_the_distances_shown_are_those_that_the_threshold_is_of(images, monkeypatch):
    given = []

    def draw(same, different, threshold):
        given.append((pair_metrics(same, different).threshold, threshold))
        return plot_distances(same, different, threshold)

    monkeypatch.setattr("deep_ranking.reports.page.figures.plot_distances", draw)
    rng = np.random.default_rng(0)
    noisy = EmbeddedImages(images.paths, images.labels, rng.normal(size=(18, 4)))
    distances(evaluate_embeddings(noisy, seed=3), noisy, 3)
    assert given[0][0] == given[0][1]


def test_names_in_the_report_are_text(report, images):
    found = Page(report[0])
    assert "b" not in {tag for tag, _ in found.tags}
    words = "".join(found.words)
    assert words.count("<h1>&") == 2  # title and heading
    assert NAMES[0] in words
    described = [each["alt"] for tag, each in found.tags if tag == "img"]
    assert os.path.basename(images.paths[0]) in described


def test_the_report_gives_the_figures_of_the_evaluation(report, images):
    mean, low, high = evaluate_embeddings(images).intervals["map_at_r"]
    assert f"</th><td>{mean:.3f}</td><td>{low:.3f} to {high:.3f}</td>" in report[0]
    recall = evaluate_embeddings(images).intervals["recall_at_1"].mean
    assert f"<strong>{100 * recall:.0f} %</strong><span>of searches find a picture" in report[0]


@pytest.mark.slow
def test_a_small_report_without_history_is_the_same_each_time(images, tmp_path):
    few = EmbeddedImages(images.paths[5:8], images.labels[5:8], images.embeddings[5:8])
    write_report(tmp_path / "few.html", evaluate_embeddings(few), few)
    text = (tmp_path / "few.html").read_text(encoding="utf-8")
    assert 'id="training"' not in text
    assert "Too few classes" in text
    write_report(tmp_path / "again.html", evaluate_embeddings(few), few)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_a_report_that_fails_leaves_nothing(images, tmp_path):
    gone = EmbeddedImages(
        [str(tmp_path / "gone.png"), *images.paths[1:]], images.labels, images.embeddings
    )
    with pytest.raises(InputError, match=r"gone\.png: no such image"):
        write_report(tmp_path / "report.html", evaluate_embeddings(images), gone)
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_a_page_escape_what_they_are_given():
    assert escaped("<&\"'") == "&lt;&amp;&quot;&#x27;"
    assert escaped("a\udcff\n\u202eb") == r"a\udcff\n\u202eb"
    assert "<td>&lt;i&gt;</td>" in table(["x"], [["<i>"]])
    assert "<title>{style}&lt;</title>" in page("{style}<", [])
    assert '<h2>&lt;b&gt;</h2>\n<p class="how">&amp;</p>' in section("<b>", "&").html


def test_history_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss\n0,,0.5\n1,0.25,1e-3\n", encoding="utf-8")
    assert read_history(path) == [
        {"epoch": 0, "val_loss": 0.5},
        {"epoch": 1, "loss": 0.25, "val_loss": 0.001},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: expected a line of names"),
        ("loss\n1\n", ":1: expected a line of names"),
        ("epoch,loss\n1,2\n2,x\n", ":3: expected numbers"),
        ("epoch,loss\n1,2,3\n", ":2: expected numbers"),
        ("epoch,loss\n,2\n", ":2: expected the number of an epoch"),
        ("epoch,loss\nnan,2\n", ":2: expected the number of an epoch"),
    ],
)
def test_a_file_that_is_no_history_is_named_with_the_line(tmp_path, text, message):
    path = tmp_path / "history.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        read_history(path)


def test_a_history_that_is_no_text_or_missing_is_named(tmp_path):
    path = tmp_path / "history.csv"
    with pytest.raises(InputError, match="no such file; check --history"):
        read_history(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a history"):
        read_history(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images each, and a file that stands for a model."""
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 100, (8, 8, 3)) + 150 * (name == "light")
            path = tmp_path / "images" / name / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (tmp_path / "model.h5").touch()
    return tmp_path


def report_of(folder, *more, model="model.h5", dataset="images", output="report.html"):
    paths = {"--model": model, "--dataset": dataset, "--output": output}
    arguments = [word for flag, name in paths.items() for word in (flag, str(folder / name))]
    return run_command("report", [*arguments, *more], prog="report")


@pytest.mark.slow
def test_the_command_writes_a_report_and_says_where(folder, capsys, monkeypatch):
    keras = pytest.importorskip("keras")
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    network.calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20)
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda path: network)
    (folder / "model.run").mkdir()
    (folder / "model.run" / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
    assert report_of(folder, "--title", "Dark & light") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("6 images of 2 classes: 0 likely mislabelled, 0 near-duplicates")
    assert lines[-1].startswith(f"Report in {folder / 'report.html'}, ")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>Dark &amp; light</h1>" in text
    assert 'id="training"' in text
    (folder / "images/light/0.png").rename(folder / "images/dark/light.png")
    (folder / "right.csv").write_text("path,from_class,to_class\ndark/light.png,dark,dark\n")
    for flags, count in (((), 2), (("--corrections", str(folder / "right.csv")), 1)):
        assert report_of(folder, *flags) == 0
        assert f": {count} likely mislabelled, " in capsys.readouterr().out
    assert "The model&#x27;s own calibration is shown" in text
    assert "<strong>100 %</strong>" in text
    assert "Gain in MAP@R over plain, 95 % sure: smoothed: " in text
    assert "Left out" not in text


@pytest.mark.slow
@pytest.mark.parametrize("other", ["dark", "light"])
def test_copies_change_no_figure_of_a_report(folder, capsys, monkeypatch, other):
    """As in `evaluate`; but a copy in another class stays, to be shown."""
    keras = pytest.importorskip("keras")
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda path: network)
    for number in range(3, 6):
        shutil.copy(folder / "images/dark/0.png", folder / f"images/{other}/{number}.png")
    assert report_of(folder) == 0
    words = "".join(Page((folder / "report.html").read_text(encoding="utf-8")).words)
    if other == "dark":
        assert "6 pictures of 2 classes, each searched" in words
        assert (
            "Left out: 3 images, copies of others or links to them (dark/3.png of dark/0.p" in words
        )
    else:  # one of the class's own copies is left in it
        assert "7 pictures of 2 classes, each searched" in words
        assert " 0 near-duplicates" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "more", "message"),
    [
        ({"model": "none.h5"}, [], "none.h5: no such file; check --model"),
        ({"dataset": "none"}, [], "none: no such folder"),
        ({"output": "images"}, [], "images: is a folder"),
        ({"output": "none/report.html"}, [], "no folder to write in"),
        ({}, ["--history", "none.csv"], "none.csv: no such file; check --history"),
    ],
)
def test_bad_input_is_one_line_before_the_long_work(folder, capsys, changed, more, message):
    before = sorted(folder.rglob("*"))
    assert report_of(folder, *more, **changed) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_of_another_user_is_said_to_be_that(folder, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert report_of(folder) == 1
    said = capsys.readouterr().err
    assert f"{folder / 'report.html'}: no permission to write in its folder" in said


def test_a_single_class_cannot_be_reported_on(folder, capsys):
    for path in (folder / "images" / "light").iterdir():
        path.unlink()
    assert report_of(folder) == 1
    assert "two classes are needed" in capsys.readouterr().err


def test_a_negative_seed_is_a_usage_error(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        report_of(folder, "--seed", "-1")
    assert ended.value.code == 2
    assert "must be 0 or more. Received: -1" in capsys.readouterr().err
