"""The ratings file: reading, adding, taking back; what is confirmed is on the disk."""

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from deep_ranking.datasets import answer_log, ratings
from deep_ranking.datasets.answer_log import AnswerLog, now
from deep_ranking.datasets.ratings import Answer, read_ratings
from deep_ranking.files import InputError

TIME = "2026-11-29T19:30:28.120Z"
ANSWER = Answer(TIME, "Ann", "q.jpg", "a.jpg", "b.jpg", side="A", asked="informative")
HEADER = "time,rater,query,chosen,other,answer,asked,side,model\n"
LINE = f"{TIME},Ann,q.jpg,a.jpg,b.jpg,chosen,informative,A,\n"


@pytest.fixture
def log(tmp_path):
    return AnswerLog(tmp_path / "ratings.csv")


def write(path, *lines, header=HEADER):
    path.write_text(header + "".join(lines))
    return path


def test_the_bytes_of_a_file_are_those_of_the_format(log):
    log.add(ANSWER)
    log.add(replace(ANSWER, query="a, b.jpg", chosen='"x".jpg', side="B", model="f" * 32))
    assert log.path.read_text() == (
        HEADER + LINE + f'{TIME},Ann,"a, b.jpg","""x"".jpg",b.jpg,chosen,informative,B,{"f" * 32}\n'
    )


def test_what_is_added_is_read(log):
    odd = replace(ANSWER, rater="Zoë", query="d/\udcff;.jpg", chosen=" a\t.jpg", side="")
    log.add(ANSWER, replace(odd, answer="cannot_say"))
    found = read_ratings(log.path)
    assert found.paths == ["q.jpg", "a.jpg", "b.jpg", "d/\udcff;.jpg", " a\t.jpg"]
    assert found.rows.tolist() == [[0, 1, 2], [3, 4, 2]]
    assert found.raters == ["Ann", "Zoë"] and found.rater.tolist() == [0, 1]
    assert found.decided.tolist() == [True, False]
    assert found.side.tolist() == [0, 2] and found.asked.tolist() == [0, 0]
    assert found.times[0].astype(str) == "2026-11-29T19:30:28.120"


def test_a_file_that_went_through_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "saved.csv"
    names = [*HEADER.strip().split(",")[::-1]]
    fields = ["", "B", "random", "chosen", "b, c.jpg", '"a;.jpg"', "q.jpg", "Ann"]
    lines = [names, [*fields, "2026-11-29 20:30:28+01:00"], [""] * 9]
    text = "\r\n".join(";".join(each) for each in lines) + "\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_ratings(path)
    assert found.paths == ["q.jpg", "a;.jpg", "b, c.jpg"]
    assert found.times[0].astype(str) == "2026-11-29T19:30:28.000"
    assert found.side.tolist() == [1] and found.asked.tolist() == [1]
    with pytest.raises(InputError, match=r"spreadsheet has saved; .*--import"):
        AnswerLog(path).add(ANSWER)
    assert path.read_bytes().endswith(b";;\r\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            LINE.replace("chosen", "yes"),
            "answer must be chosen, cannot_say or taken_back, not 'yes",
        ),
        (LINE.replace("informative", "x"), "asked must be"),
        (LINE.replace(",A,", ",left,"), "side must be A, B or empty, not 'left'"),
        (LINE.replace(TIME, "29.11.26"), "time must be as in 2026-11-29T19:30:28Z, not '29.11.26'"),
        (LINE.replace("Ann", ""), "the rater is empty"),
        (LINE.replace("Ann", "x" * 300), "up to 200 characters"),
        (LINE.replace("b.jpg", "a.jpg"), "three different images"),
        (LINE.replace("q.jpg", "/q.jpg"), "paths start from the folder"),
        (LINE.replace("q.jpg", "d/../../q.jpg"), "paths start from the folder"),
        (LINE.replace("q.jpg", ""), "the path of query is empty"),
        (LINE.replace("q.jpg", "q, 1.jpg"), "expected 9 fields, received 10 fields; quote"),
        (LINE.replace(",A,", ",A,\0"), "not a text file"),
        (LINE.replace("q.jpg", '"q.jpg'), "a quote is opened and not closed"),
        (LINE.replace("chosen", "taken_back").replace("Ann", "Bob"), "Bob, who has none that"),
        (
            LINE.replace("chosen", "taken_back").replace("q.jpg", "r.jpg"),
            "Ann, who has line 2 as the last that stands; put the lines into the order",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_remedy(tmp_path, line, said):
    path = write(tmp_path / "ratings.csv", LINE, line)
    with pytest.raises(InputError) as error:
        read_ratings(path)
    assert str(error.value).startswith(f"{path}:3: ") and said in str(error.value)


def test_other_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such ratings file"):
        read_ratings(tmp_path / "none.csv")
    triplets = write(tmp_path / "triplets.txt", "q.jpg,a.jpg,b.jpg\n", header="")
    with pytest.raises(InputError, match=r":1: not a ratings file: expected time,rater"):
        read_ratings(triplets)
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"\xff\xd8 no line break")
    for other in (triplets, picture):
        before = other.read_bytes()
        with pytest.raises(InputError, match="does not begin with time,rater"):
            AnswerLog(other).add(ANSWER)
        assert other.read_bytes() == before
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="not a regular file"):
        AnswerLog(tmp_path / "pipe.csv").add(ANSWER)
    large = write(tmp_path / "large.csv", LINE * 3)
    monkeypatch.setattr(ratings, "MAX_BYTES", 200)
    with pytest.raises(InputError, match="bytes are more than expected"):
        read_ratings(large)
    monkeypatch.setattr(ratings, "MAX_BYTES", 2000)
    monkeypatch.setattr(ratings, "MAX_ANSWERS", 2)
    with pytest.raises(InputError, match=":4: more than 2 answers"):
        read_ratings(large)


def test_a_full_file_takes_no_more(log, monkeypatch):
    log.add(ANSWER)
    before = log.path.read_bytes()
    monkeypatch.setattr(answer_log, "MAX_BYTES", len(before) + 5)
    with pytest.raises(InputError, match="as many as a ratings file may have; begin another"):
        log.add(ANSWER)
    assert log.path.read_bytes() == before


def test_several_are_taken_back_all_or_none(log, monkeypatch):
    answers = [replace(ANSWER, query=f"{number}.jpg") for number in range(3)]
    log.add(*answers)
    with pytest.raises(InputError, match="no answer of Ann that could be taken back"):
        log.take_back("Ann", 4)
    writes, pwrite = [], os.pwrite

    def full_at_the_second(*given):
        writes.append(given)
        if len(writes) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(*given)

    monkeypatch.setattr(os, "pwrite", full_at_the_second)
    assert log.take_back("Ann", 2) == answers[1]
    assert AnswerLog(log.path).standing().answers == answers[:1]


def test_taking_back_takes_the_last_that_stands(log):
    second = replace(ANSWER, query="r.jpg", answer="cannot_say")
    log.add(ANSWER)
    log.add(replace(ANSWER, rater="Bob"))
    log.add(second)
    assert log.take_back("Ann") == second
    assert log.take_back("Ann") == ANSWER
    with pytest.raises(InputError, match="no answer of Ann that could be taken back"):
        log.take_back("Ann")
    found = read_ratings(log.path)
    assert found.raters == ["Bob"] and found.num_taken_back == 2
    lines = log.path.read_text().splitlines()
    assert [each.split(",")[5] for each in lines[4:]] == ["taken_back", "taken_back"]
    with pytest.raises(InputError, match="call take_back"):
        log.add(replace(ANSWER, answer="taken_back"))


def test_the_same_question_is_the_same_on_either_side(log):
    swapped = replace(ANSWER, chosen="b.jpg", other="a.jpg", side="B")
    log.add(ANSWER, replace(ANSWER, query="b.jpg", other="q.jpg"), swapped, ANSWER)
    question, first = read_ratings(log.path).questions()
    assert question[0] == question[2] == question[3] != question[1]
    assert first[0] == first[3] != first[2]


def test_copies_of_a_file_count_once_and_repeats_twice(tmp_path):
    one, two = tmp_path / "1.csv", tmp_path / "2.csv"
    AnswerLog(one).add(ANSWER, ANSWER)
    AnswerLog(two).add(ANSWER, replace(ANSWER, rater="Bob"))
    found = read_ratings(one, two)
    assert (len(found), found.num_copied) == (3, 1)
    assert found.rater.tolist() == [0, 0, 1]


@pytest.mark.parametrize("length", [1, len(TIME), 40, len(LINE) - 2, len(LINE) - 1])
def test_a_last_line_that_was_cut_off_is_passed_over_and_cut(log, length):
    log.path.write_text(HEADER + LINE + LINE[:length])
    found = read_ratings(log.path)
    assert len(found) == 1 and found.cut_off == (log.path,)
    log.add(replace(ANSWER, rater="Bob"))
    assert log.path.read_text() == HEADER + LINE + LINE.replace("Ann", "Bob")
    assert read_ratings(log.path).cut_off == ()


def test_more_that_was_cut_off_than_is_added_leaves_no_trace(log):
    log.path.write_text(HEADER + LINE.replace("q.jpg", "q" * 3000)[:2000])
    log.add(ANSWER)
    assert log.path.read_text() == HEADER + LINE


@pytest.mark.parametrize("length", [0, 1, len(HEADER) - 1, len(HEADER)])
def test_a_header_that_was_cut_off_is_written_anew(log, length):
    log.path.write_text(HEADER[:length])
    assert len(read_ratings(log.path)) == 0
    log.add(ANSWER)
    assert log.path.read_text() == HEADER + LINE


@pytest.mark.parametrize("existing", ["", HEADER + LINE])
@pytest.mark.parametrize("failing", ["pwrite", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(log, monkeypatch, existing, failing):
    if existing:
        log.path.write_text(existing)
    real, calls = os.pwrite, itertools.count()

    def full(descriptor, *data):
        if failing == "pwrite" and next(calls) == 0:
            return real(descriptor, data[0][:10], data[1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(InputError, match=r"cannot be kept .No space left on device.; free"):
            log.add(ANSWER)
    assert log.path.read_text() == existing
    log.add(ANSWER)
    assert log.path.read_text() == (existing or HEADER) + LINE


def test_an_interrupt_leaves_the_file_as_it_was(log, monkeypatch):
    log.add(ANSWER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.add(ANSWER)
    assert log.path.read_text() == HEADER + LINE


def test_no_permission_or_folder_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        AnswerLog(tmp_path / "none" / "ratings.csv").add(ANSWER)
    real = os.open

    def denied(path, *args, **options):
        if str(path).endswith("ratings.csv"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InputError, match=r"cannot be kept .Permission denied.") as error:
        AnswerLog(tmp_path / "ratings.csv").add(ANSWER)
    assert "\n" not in str(error.value)


def test_who_waits_too_long_is_told(tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / ".ratings.csv.lock"),
        pytest.raises(InputError, match="others have been writing to it for 0 seconds"),
    ):
        AnswerLog(tmp_path / "ratings.csv", lock_seconds=0).add(ANSWER)


def test_many_raters_add_to_one_file_at_once(log):
    def rate(rater):
        own = AnswerLog(log.path)
        for number in range(5):
            own.add(replace(ANSWER, rater=rater, query=f"{number}.jpg"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rate, "wxyz"))
    found = read_ratings(log.path)
    assert len(found) == 20
    for number in range(4):
        queries = [found.paths[each] for each in found.rows[found.rater == number, 0]]
        assert queries == [f"{each}.jpg" for each in range(5)]


def test_now_is_read_back(log):
    log.add(replace(ANSWER, time=now()))
    assert len(read_ratings(log.path)) == 1


RATER = """
import sys
from deep_ranking.datasets.answer_log import AnswerLog, now
from deep_ranking.datasets.ratings import Answer
path, rater = sys.argv[1:]
log = AnswerLog(path)
number = 0
while True:
    log.add(Answer(now(), rater, f"{number}.jpg", "a.jpg", "b.jpg"))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_kills_lose_no_confirmed_answer(tmp_path):
    path, chance = tmp_path / "ratings.csv", random.Random(0)
    confirmed = {}
    for kill in range(5):
        pair = [f"{kill} {each}" for each in range(5)]  # locks are left behind too
        running = [
            subprocess.Popen(
                [sys.executable, "-c", RATER, str(path), rater],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rater in pair
        ]
        for process in running:
            process.stdout.readline()
        for rater, process in zip(pair, running, strict=True):
            for _ in range(chance.randrange(20)):
                process.stdout.readline()
            time.sleep(chance.random() / 50)
            process.send_signal(signal.SIGKILL)
            last = process.stdout.read().split()  # complete lines, or part of the last
            process.wait()
            process.stdout.close()
            confirmed[rater] = int(last[-1]) if last else 0
        found = read_ratings(path)
        for rater, last in confirmed.items():
            own = found.rows[found.rater == found.raters.index(rater), 0]
            numbers = [int(found.paths[each].removesuffix(".jpg")) for each in own]
            assert numbers == list(range(len(numbers))) and len(numbers) > last
    before = len(found)
    AnswerLog(path).add(ANSWER)
    assert len(read_ratings(path)) == before + 1
