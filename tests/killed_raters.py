"""A server that is killed (SIGKILL) while people answer its questions; run as a program by a test.

Two raters answer all the time, and now and then take an answer back. Half of the kills come at a
line of what writes the file, the others at a random time. After each, whatever was not confirmed is
sent again to the next server, and the file has to hold what was confirmed, in order and once.
"""

import json
import random
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from killed_servers import ForkedServer
from served import make_served, use_stub_engine, write_photos

from deep_ranking.datasets.ratings import read_ratings
from deep_ranking.serving.settings import ServerSettings

RATERS = ("Ann", "Bob")
MOST_LINES = 400  # of the module; an answer passes some 30
MOST_SECONDS = 0.4
WRITING = "files/append_log.py"


class Rater:
    """Answers until the server is gone.

    Attributes:
        standing: confirmed answers that were not taken back: paths of query, chosen and other.
        problems: what the server did that it should not.
        unsure: what was sent and not confirmed: address, form, paths; None for nothing.
    """

    def __init__(self, name):
        self.name, self.random = name, random.Random(name)
        self.standing, self.problems = [], []
        self.unsure = self.last = None
        self.num_confirmed = self.num_again = 0

    def rate(self, server):
        try:
            if self.unsure is not None:
                self._send(server, *self.unsure, is_again=True)
            while True:
                if self.last is not None and self.random.random() < 0.1:
                    self._send(server, "teach/take_back", self.last, None)
                else:
                    self._answer(server)
        except httpx.TransportError:
            return

    def _answer(self, server):
        question = server.post("teach/question", {"rater": self.name})["question"]
        ids = {side: question[side]["id"] for side in ("query", "a", "b")}
        side, other = self.random.sample("ab", 2)
        paths = tuple(question[each]["path"] for each in ("query", side, other))
        about = {"asked": question["asked"], "before": question["before"], "answer": side}
        self._send(server, "teach/answers", {"rater": self.name} | ids | about, paths)

    def _send(self, server, address, form, paths, *, is_again=False):
        self.unsure = address, form, paths
        answer = server.send(address, form)
        self.unsure = None
        if paths is None:
            if answer.status_code == 200 or (is_again and answer.status_code == 409):
                self.standing.pop()
                self.last = None
                return
        elif answer.status_code == 200:
            self.standing.append(paths)
            self.num_confirmed += 1
            self.num_again += answer.json()["already"]
            if answer.json()["already"] and not is_again:
                self.problems.append(f"was there before it was sent: {paths}")
            self.last = {name: form[name] for name in ("rater", "query", "a", "b")}
            return
        self.problems.append(f"{address}: {answer.status_code} {answer.text}")


def killed_once(work, settings, raters, kill):
    """Let all rate until the server is killed; return what is wrong with the file."""
    server = ForkedServer(work, kill.get("fatal"), settings=settings, module=WRITING)
    threads = [threading.Thread(target=each.rate, args=(server,)) for each in raters]
    for thread in threads:
        thread.start()
    if "seconds" in kill:
        time.sleep(kill["seconds"])
        server.kill()
    for thread in threads:
        thread.join()
    if not server.end():
        return ["it was not killed"]
    problems = [f"{each.name}: {problem}" for each in raters for problem in each.problems]
    for each in raters:
        each.problems.clear()
    return problems + wrong_in_file(settings.ratings, raters)


def wrong_in_file(path, raters, *, is_settled=False):
    """Say what of the confirmed answers is not there, and what is there that was not sent."""
    if not path.exists():
        return [f"no file, and {sum(each.num_confirmed for each in raters)} were confirmed"]
    found, problems = read_ratings(path), []
    for each in raters:
        number = found.raters.index(each.name) if each.name in found.raters else -1
        rows = found.rows[found.rater == number].tolist()
        there = [tuple(found.paths[index] for index in row) for row in rows]
        due = [each.standing]
        if each.unsure is not None and not is_settled:
            paths = each.unsure[2]
            due.append(each.standing[:-1] if paths is None else [*each.standing, paths])
        if there not in due:
            problems.append(f"{each.name}: {len(there)} answers, expected {len(each.standing)}")
    return problems


def main(work, num_kills):
    """Kill servers; print what was wrong, if anything, as JSON."""
    chance, raters = random.Random(0), [Rater(name) for name in RATERS]
    problems = []
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_photos(work / "photos")
        make_served(work / "index", work / "photos")
        settings = ServerSettings(port=0, ratings=work / "ratings.csv")
        for number in range(num_kills):
            kill = {"fatal": chance.randint(1, MOST_LINES)}
            if number % 2:
                kill = {"seconds": chance.uniform(0, MOST_SECONDS)}
            problems += [f"{kill}: {each}" for each in killed_once(work, settings, raters, kill)]
    told = {
        "kills": num_kills,
        "confirmed": sum(each.num_confirmed for each in raters),
        "again": sum(each.num_again for each in raters),
        "standing": sum(len(each.standing) for each in raters),
    }
    print(json.dumps(told | {"problems": problems}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
