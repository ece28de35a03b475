"""Places an order. The order and the job that sends its mail exist both or neither.

PGHOST, PGDATABASE, PGUSER and so on say where the database is.
"""

import json
import sys

import psycopg


def place_order(db, item, paid):
    with db.transaction():  # rolls back when an exception leaves it
        (order,) = db.execute("insert into orders (item) values (%s) returning id", [item]).fetchone()
        (job,) = db.execute(
            "insert into inbox (queue, body) values ('mail', %s) returning id",
            [json.dumps({"input": {"order": order}, "key": item})],
        ).fetchone()
        if not paid:
            raise SystemExit("the payment failed: there is no order, and no mail is sent")
    return job  # GET /v1/jobs/{job} follows it from now on


if __name__ == "__main__":
    with psycopg.connect() as db:
        print(place_order(db, sys.argv[1], paid=sys.argv[2] == "paid"))
