"""Fill a collection's index in Milvus and be killed at one message; run as a program by a test.

Arguments: folder, rows of a message, how many messages to send, and whether the server carries the
last of them out before the kill.
"""

import os
import signal
import sys

from deep_ranking.search.collection import Collection
from deep_ranking.search.index import milvus_filling
from deep_ranking.search.index.milvus import MilvusIndex


def main(folder, rows_of_message, count, is_carried_out):
    collection = Collection.open(folder)
    milvus_filling.BATCH_BYTES = 4 * collection.settings.dimension * int(rows_of_message)
    index = MilvusIndex(collection)
    ask, left = index.connection.ask, int(count)

    def wrapped(method, name, **arguments):
        nonlocal left
        if method not in ("insert", "upsert"):
            return ask(method, name, **arguments)
        left -= 1
        if left or is_carried_out == "yes":
            ask(method, name, **arguments)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    index.connection.ask = wrapped
    index.bring_up_to_date(collection)


if __name__ == "__main__":
    main(*sys.argv[1:])
