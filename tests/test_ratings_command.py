"""`ratings`: figures, a model beside the raters, and triplets out of ratings and into them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer, read_ratings
from deep_ranking.files import InputError
from deep_ranking.reports.ratings.summary import summarize_ratings
from deep_ranking.sampling.rated_triplets import import_ratings, majority_triplets
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

NAMES = ("q", "a", "b", "c", "d, e")
ANGLES = {"q": 0.0, "a": 0.2, "b": 0.5, "c": 0.9, "d, e": 1.4}  # of the index's rows


def answer(rater, query, chosen, other, *, second=0, **more):
    paths = (f"cat/{each}.png" for each in (query, chosen, other))
    return Answer(f"2026-11-29T19:30:{second:02}Z", rater, *paths, **{"side": "A"} | more)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("rated") / "photos"
    (root / "cat").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(root / "cat" / f"{name}.png")
    return root


@pytest.fixture
def rated(tmp_path):
    """Ann is steady on two of three; Bob agrees on one of two; one says nothing of a question."""
    path = tmp_path / "ratings.csv"
    log = AnswerLog(path)
    log.add(
        answer("Ann", "q", "a", "b", asked="random"),
        answer("Ann", "q", "b", "c", asked="informative"),
        answer("Ann", "q", "d, e", "a", asked="informative"),
        answer("Ann", "q", "a", "b", asked="repeat", side="B", second=1),
        answer("Ann", "q", "b", "c", asked="repeat", side="B", second=1),
        answer("Ann", "q", "a", "d, e", asked="repeat", side="B", second=1),
        answer("Bob", "q", "a", "b", asked="random"),
        answer("Bob", "q", "c", "b", asked="random"),
        answer("Bob", "a", "c", "q", asked="random"),
        answer("Bob", "b", "a", "q", answer="cannot_say", asked="random"),
        answer("Bob", "c", "a", "q", asked="random", second=2),
    )
    log.take_back("Bob")
    return path


def run(*argv):
    return run_command("ratings", list(map(str, argv)))


def test_figures_by_hand(rated):
    found = summarize_ratings(read_ratings(rated))
    ann, bob = found.raters
    assert (found.num_answers, found.num_images) == (10, 5)
    assert found.asked == {"informative": 2, "random": 5, "repeat": 3}
    assert (ann.num_answers, ann.num_cannot_say, bob.num_answers, bob.num_cannot_say) == (
        6,
        0,
        4,
        1,
    )
    assert (ann.first, ann.last) == ("2026-11-29T19:30:00.000Z", "2026-11-29T19:30:01.000Z")
    assert ann.steadiness.share.mean == pytest.approx(2 / 3) and ann.steadiness.num_compared == 3
    assert bob.steadiness.num_compared == 0 and found.all_steadiness == ann.steadiness
    assert (ann.on_side_a.share.mean, bob.on_side_a.share.mean) == (0.5, 1.0)
    ((one, another, between),) = found.between
    assert (one, another) == ("Ann", "Bob")
    assert between.share.mean == found.all_between.share.mean == 0.5
    assert found.num_contradicted == 2  # q: a or d, e; q: b or c
    assert found.left_out == ["1 answer taken back"] and found.notes == []


def test_the_majority_has_one_vote_of_each_rater(rated):
    ratings = read_ratings(rated)
    found = majority_triplets(ratings)
    names = {tuple(ratings.paths[each][4:-4] for each in row) for row in found.rows}
    assert names == {("q", "a", "b"), ("a", "c", "q")}
    assert (found.num_ties, found.num_undecided, found.num_cannot_say) == (1, 1, 1)
    AnswerLog(rated).add(answer("Eve", "q", "c", "b"), answer("Eve", "q", "d, e", "a"))
    ratings = read_ratings(rated)
    names = {tuple(ratings.paths[each][4:-4] for each in row)
             for row in majority_triplets(ratings).rows}  # fmt: skip
    assert names == {("q", "a", "b"), ("a", "c", "q"), ("q", "c", "b"), ("q", "d, e", "a")}


def test_the_text_has_the_figures_in_words(rated, capsys):
    assert run(rated) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{rated}: 10 answers by 2 raters about 5 images, on 2026-11-29."
    assert lines[1] == "Asked: 2 informative, 5 random, 3 repeat."
    assert lines[2] == "Left out: 1 answer taken back."
    ann = ("Ann", "6", "0", "0.667 [0.208, 0.939] of 3", "0.500 [0.188, 0.812] of 6")
    assert " ".join(lines[5].split()) == " ".join(ann)
    assert lines[9].split(maxsplit=4)[-1] == "0.667 [0.208, 0.939] of 3"
    assert "between raters" in lines[10] and "of 2" in lines[10]
    assert lines[-1] == "Contradicting: 2 questions with answers for either image."


def test_what_cannot_be_told_is_said(tmp_path, capsys):
    path = tmp_path / "ratings.csv"
    log = AnswerLog(path)
    log.add(*(answer("Ann", "q", name, other) for name in "abc" for other in "xyz"))
    assert run(path) == 0
    said = capsys.readouterr().out
    assert "No question was answered twice by one rater: how steady they are is not known." in said
    assert "One rater: whether others would agree is not known." in said
    assert "Always the same side: Ann; did they look at the pictures?" in said
    log.add(answer("Bob", "a", "b", "c", side=""))
    assert run(path) == 0
    assert "No question was answered by two raters" in capsys.readouterr().out


def test_many_raters_are_cut_short_in_the_text_and_not_in_json(tmp_path, capsys):
    path = tmp_path / "ratings.csv"
    AnswerLog(path).add(*(answer(f"rater {each}", "q", "a", "b") for each in range(30)))
    assert run(path) == 0
    assert "and 10 more, which --json lists" in capsys.readouterr().out
    assert run(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["raters"]) == 30 and found["between_all"]["share"] == 1
    assert found["raters"][0]["steadiness"]["share"] is None
    assert found["raters"][29]["name"] == "rater 29" and found["raters"][29]["answers"] == 1


@pytest.fixture
def index(photos, tmp_path):
    rows = {f"cat/{name}.png": [np.cos(angle), np.sin(angle)] for name, angle in ANGLES.items()}
    return make_collection(tmp_path / "photos.index", photos, rows).folder


def test_a_model_is_beside_the_raters_by_the_rows_of_an_index(rated, index, capsys):
    AnswerLog(rated).add(
        answer("Eve", "q", "c", "b"),  # the model disagrees
        answer("Eve", "q", "a", "c"),
        answer("Eve", "gone", "a", "c", asked="informative"),
    )
    assert run(rated, "--index", index, "--json") == 0
    found = json.loads(capsys.readouterr().out)["model"]
    # q: a, not b; q: c, not b (wrong); a: c, not q (wrong); q: a, not c
    assert (found["agreement"]["share"], found["agreement"]["compared"]) == (0.5, 4)
    assert (found["at_random"]["share"], found["at_random"]["compared"]) == (0.5, 4)
    assert found["gone"] == 1
    assert run(rated, "--index", index) == 0
    said = capsys.readouterr().out
    assert "of the model with most raters 0.500" in " ".join(said.split())
    assert "Left out for the model: 1 question with an image that is gone or broken." in said


def test_a_question_about_copies_is_left_out_for_the_model(photos, tmp_path, rated):
    from deep_ranking.reports.ratings.model_on_ratings import index_on_ratings

    angles = ANGLES | {"b": ANGLES["a"]}
    rows = {f"cat/{name}.png": [np.cos(angle), np.sin(angle)] for name, angle in angles.items()}
    folder = make_collection(tmp_path / "other.index", photos, rows).folder
    found = index_on_ratings(read_ratings(rated), folder)
    assert (found.num_copies, found.agreement.num_compared) == (1, 1)


def test_exported_triplets_are_found_by_training(rated, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "rated.txt"
    AnswerLog(rated).add(answer("Eve", "d, e", "a", "c"), answer("Eve", "d, e", "a", "gone"))
    assert run(rated, "--dataset", photos, "--export", file) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"3 triplets in {file}. Left out: 1 question with as many votes for one as for the other; "
        "1 question that a rater answered both ways equally often; 1 answer that chose neither; "
        "1 triplet with an image that is gone."
    )
    triplets = read_triplets(file)
    files = [(photos / "cat" / f"{each}.png").resolve() for each in ("q", "a", "b", "c", "d, e")]
    resolved = resolve_paths(triplets, None)
    found = {tuple((file.parent / resolved[each]).resolve() for each in row)
             for row in triplets.rows}  # fmt: skip
    q, a, b, c, d = files
    assert found == {(q, a, b), (a, c, q), (d, a, c)}


def test_triplets_are_imported_once(photos, tmp_path, capsys):
    source, target = tmp_path / "triplets.txt", tmp_path / "ratings.csv"
    lines = [
        "query,positive,negative",
        "photos/cat/q.png,photos/cat/a.png,photos/cat/b.png",
        '"photos/cat/d, e.png",photos/cat/a.png,photos/cat/b.png',
        "photos/cat/q.png,photos/cat/a.png,photos/cat/b.png",
        "photos/cat/gone.png,photos/cat/a.png,photos/cat/b.png",
        "photos/cat/q.png,elsewhere.png,photos/cat/b.png",
    ]
    (tmp_path / "photos").symlink_to(photos)
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    source.write_text("\n".join(lines) + "\n")
    call = (target, "--import", source, "--rater", "Eve", "--dataset", photos)
    assert run(*call) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        f"2 answers added to {target}. Left out: 1 known already; 1 with an image that is gone; "
        "1 with an image outside the folder."
    )
    found = read_ratings(target)
    assert found.raters == ["Eve"] and found.asked.tolist() == [3, 3]
    assert found.paths == ["cat/q.png", "cat/a.png", "cat/b.png", "cat/d, e.png"]
    assert run(*call) == 1
    assert "nothing to import: 0 answers added" in capsys.readouterr().err
    assert len(read_ratings(target)) == 2


def test_ratings_of_a_spreadsheet_are_imported_with_their_raters(rated, tmp_path):
    saved, target = tmp_path / "saved.csv", tmp_path / "new.csv"
    saved.write_bytes(rated.read_bytes().replace(b'"', b"").replace(b"d, e", b"d")
                      .replace(b",", b";").replace(b"\n", b"\r\n"))  # fmt: skip
    assert import_ratings(saved, target).num_added == 10
    assert read_ratings(target).raters == ["Ann", "Bob"]
    AnswerLog(target).add(answer("Ann", "a", "b", "c"))
    assert import_ratings(rated, target).num_known == 8  # those without the renamed image
    with pytest.raises(InputError, match="answers of Ann, Bob, which cannot all be Eve's"):
        import_ratings(rated, tmp_path / "third.csv", rater="Eve")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("r.csv --model m.h5 --index i", "give --model or --index, not both"),
        ("r.csv --model m.h5", "--model needs --dataset"),
        ("r.csv --export t.txt", "--export needs --dataset"),
        ("r.csv s.csv --import t.txt", "--import needs one FILE"),
        ("r.csv --rater Ann", "--rater has no effect without --import"),
        ("r.csv --dataset d", "--dataset has no effect without --model, --export or --import"),
    ],
)
def test_flags_that_do_not_go_together_are_a_usage_error(argv, said, capsys):
    with pytest.raises(SystemExit) as end:
        run(*argv.split())
    line = capsys.readouterr().err
    assert end.value.code == 2 and said in line and line.count("\n") == 1


def test_bad_ratings_are_one_line_and_exit_1(rated, photos, index, tmp_path, capsys):
    def refused(*argv):
        assert run(*argv) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1
        return line

    other = tmp_path / "other.csv"
    AnswerLog(other).add(answer("Ann", "x", "y", "z"))
    export = ("--export", tmp_path / "t.txt", "--dataset")
    assert "no such ratings file" in refused(tmp_path / "none.csv")
    assert "holds none of the 3 rated images, such as cat/x.png" in refused(other, *export, photos)
    assert "has none of the 3 rated images" in refused(other, "--index", index)
    assert "no such file; check --dataset" in refused(other, *export, tmp_path / "no")
    assert "no such folder; give the folder that the ratings' paths" in refused(
        other, *export, other
    )
    assert "a triplet file names no rater" in refused(other, "--import", _triplets(tmp_path))
    AnswerLog(other).add(answer("Bob", "x", "z", "y"))
    assert "no triplet to write: 1 question with as many" in refused(other, *export, photos)
    split = tmp_path / "split.csv"
    AnswerLog(split).add(answer("Ann", "q", "a", "b"), answer("Bob", "q", "b", "a"))
    assert "than for the other (1 question with as many" in refused(split, "--index", index)
    AnswerLog(other).add(answer("Bob", "q", "a", "z"))
    assert "1 triplet, each with an image that is gone; give the folder" in refused(
        other, *export, photos
    )
    silent = tmp_path / "silent.csv"
    AnswerLog(silent).add(replace(answer("Ann", "q", "a", "b"), answer="cannot_say"))
    assert "1 answer, and none chose an image (cannot_say): nothing is left" in refused(silent)
    AnswerLog(silent).take_back("Ann")
    assert "no answers in it (1 answer taken back)" in refused(silent)
    assert not (tmp_path / "t.txt").exists()


def _triplets(folder):
    file = folder / "triplets.txt"
    file.write_text("q.png,a.png,b.png\n")
    return file
