"""INDEX.taught/: which model that was taught is shown, whatever stops the process that adds one."""

import json
import shutil

import pytest
from served import make_served, write_photos

from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection
from deep_ranking.serving.learn import generations as module
from deep_ranking.serving.learn.generations import Generation, Generations, History


@pytest.fixture
def index(tmp_path):
    write_photos(tmp_path / "photos")
    make_served(tmp_path / "photos.index", tmp_path / "photos")
    return tmp_path / "photos.index"


def made(index, number, **changes):
    base = Collection.open(index).settings.fingerprint
    values = {
        "number": number,
        "time": "2026-11-29T19:30:28Z",
        "answers": 12,
        "fingerprint": "f",
        "base": base,
        "state": "",
        "is_better": True,
        "words": "better",
        "report": {"after": 0.75},
    }
    return Generation(**values | changes)


def add(generations, *, is_shown=True, **changes):
    number = generations.next_number()
    with generations.making() as folder:
        shutil.copytree(generations.index, folder / "index")
        generations.add(made(generations.index, number, **changes), is_shown=is_shown)
    return number


def test_what_is_added_is_kept_and_shown_and_the_way_back_is_there(index):
    generations = Generations(index)
    assert generations.history() == History(0, ())
    assert add(generations) == 1
    assert add(generations, is_shown=False, report={"after": 0.5}) == 2
    again = Generations(index)
    assert again.shown() == 1
    assert [each.report["after"] for each in again.history().generations] == [0.75, 0.5]
    assert again.index_of(1) == index.with_name("photos.index.taught") / "1" / "index"
    for number in (2, 0, 1):
        again.show(number)
        assert Generations(index).shown() == number
    assert again.index_of(0) == index


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("step", ["make", "rename", "write", "after"])
def test_what_is_stopped_leaves_the_last_complete_one(index, monkeypatch, step):
    generations = Generations(index)
    add(generations)

    def stop(*_, **__):
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        # As a kill leaves them, nothing is tidied up.
        patch.setattr(module.shutil, "rmtree", stop if step == "after" else lambda *_, **__: None)
        if step == "rename":
            patch.setattr(module.Path, "rename", stop)
        if step == "write":
            patch.setattr(Generations, "_write", stop)
        if step == "after":
            patch.setattr(module, "MOST_KEPT", 1)
        with generations.making() as folder:
            shutil.copytree(index, folder / "index")
            if step == "make":
                raise Stopped
            generations.add(made(index, 2), is_shown=True)
    shown = 2 if step == "after" else 1
    again = Generations(index)
    assert again.shown() == shown
    assert Collection.open(again.index_of(shown)).settings
    assert add(again) == shown + 1
    names = {each.name for each in again.folder.iterdir() if not each.name.endswith(".lock")}
    assert names == {"current.json", *(str(number) for number in range(1, shown + 2))}


def test_the_files_of_a_few_are_kept_and_the_reports_of_all(index, monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    generations = Generations(index)
    for is_shown in (True, False, False, False):
        add(generations, is_shown=is_shown)
    kept = [number for number in range(1, 5) if generations.is_kept(number)]
    assert kept == [1, 3, 4]  # the one that is shown, and the last ones
    assert len(generations.history().generations) == 4
    with pytest.raises(InputError, match="of generation 2, only the report is kept: the last 2"):
        generations.show(2)
    with pytest.raises(InputError, match="has no generation 5"):
        generations.show(5)
    assert generations.shown() == 1


def test_what_is_removed_cannot_be_shown_at_that_moment(index, monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    monkeypatch.setattr(module, "LOCK_SECONDS", 0)
    generations = Generations(index)
    add(generations, is_shown=False)
    remove, refused = shutil.rmtree, []

    def show_first(folder, **options):
        if folder.name == "1":
            with pytest.raises(InputError) as error:
                Generations(index).show(1)
            refused.append(str(error.value))
        remove(folder, **options)

    monkeypatch.setattr(module.shutil, "rmtree", show_first)
    add(generations, is_shown=False)
    assert len(refused) == 1
    assert generations.shown() == 0


def test_of_a_long_history_the_one_that_is_shown_is_not_lost(index, monkeypatch):
    monkeypatch.setattr(module, "MOST_TOLD", 2)
    generations = Generations(index)
    for is_shown in (True, False, False, False):
        add(generations, is_shown=is_shown)
    assert [each.number for each in generations.history().generations] == [1, 3, 4]
    assert generations.shown() == 1
    assert add(generations) == 5


def test_two_do_not_make_one_at_the_same_time(index):
    with (
        Generations(index).making(),
        pytest.raises(InputError, match="another process teaches this index"),
        Generations(index).making(),
    ):
        pass


def test_an_index_that_was_made_anew_is_not_shown_by_an_earlier_generation(index):
    generations = Generations(index)
    add(generations, base="another")
    with pytest.raises(InputError, match=r"generation 1 was taught on an earlier index.*remove"):
        generations.shown()
    generations.show(0)
    assert generations.shown() == 0


def test_of_other_images_nothing_is_shown(index):
    generations = Generations(index)
    add(generations)
    Collection.open(generations.index_of(1)).change(root="/elsewhere")
    with pytest.raises(InputError, match="generation 1 is of other images"):
        generations.shown()


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["generations"][0].update(number="1"),
        lambda values: values["generations"][0].update(report=[]),
        lambda values: values["generations"][0].update(more=1),
        lambda values: values["generations"].append(values["generations"][0]),
        lambda values: values.update(shown=2),
        lambda values: values.update(shown=True),
        lambda values: values.pop("shown"),
        lambda values: values.update(generations=None),
    ],
)
def test_another_file_in_its_place_is_one_line(index, change):
    generations = Generations(index)
    add(generations)
    file = generations.folder / "current.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"current.json: not what a server.*remove it"):
        generations.history()
