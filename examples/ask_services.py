"""
Rules that wait for others: a database and a web service are asked, at once, before a request goes on.

    DATABASE="dbname=shop" CREDITS="http://127.0.0.1:8080/credits" \\
        twistd -n thrproxy --config ask_services.py --backend http://127.0.0.1:9999

The same is written three ways, of which each is as good as the others: with callbacks, with inlineCallbacks, and as a
coroutine. What comes to /callbacks/…, /inline/… and /coroutine/… is handled by one of them. While a request waits for
its answers, all the others go on: nothing here blocks the proxy.

It needs the package psycopg, version 3.
"""

import os

import treq
from twisted.enterprise import adbapi
from twisted.internet.defer import gatherResults, inlineCallbacks

from thrtwisted.dsl import Actions, Criteria, add_rule, glob

DATABASE = os.environ.get("DATABASE", "dbname=shop")
CREDITS = os.environ.get("CREDITS", "http://127.0.0.1:8080/credits")

# A query waits in a thread of this pool, never in the proxy's own. There are as many threads as there may be queries at
# once (the default of the pool is 5); each has a connection, opened when it is first needed, and closed when the
# proxy stops. That waits for queries under way: so none may take longer than five seconds.
database = adbapi.ConnectionPool(
    "psycopg",
    DATABASE,
    autocommit=True,
    connect_timeout=5,
    options="-c statement_timeout=5s",
    cp_min=1,
    cp_max=20,
    cp_reconnect=True,
)


def find_plan(user):
    """Ask the database: fires with the rows, of which there is one or none."""
    return database.runQuery("select plan from customers where name = %s", (user,))


def find_credits(user):
    """Ask the web service: fires with a text."""
    return treq.get(CREDITS, params={"user": user}, timeout=5).addCallback(treq.text_content)


def decide(exchange, rows, credits):
    """What is done with the answers: the application sees them, and who pays goes first."""
    plan = rows[0][0] if rows else "none"
    exchange.set_input_header(("X-Plan", plan))
    exchange.set_input_header(("X-Credits", credits))
    exchange.set_input_priority(20 if plan == "gold" and int(credits) else 80)


def with_callbacks(exchange):
    """First way. Both questions are under way before either is answered; the Deferred fires after both are."""
    user = exchange.request.headers.get("X-User", "")
    answers = gatherResults([find_plan(user), find_credits(user)], consumeErrors=True)
    return answers.addCallback(lambda both: decide(exchange, *both))


@inlineCallbacks
def with_inline_callbacks(exchange):
    """Second way. The function stops at the yield until both answers are there."""
    user = exchange.request.headers.get("X-User", "")
    rows, credits = yield gatherResults([find_plan(user), find_credits(user)], consumeErrors=True)
    decide(exchange, rows, credits)


async def with_a_coroutine(exchange):
    """Third way. One await for both: an await for each would ask the second when the first has answered."""
    user = exchange.request.headers.get("X-User", "")
    rows, credits = await gatherResults([find_plan(user), find_credits(user)], consumeErrors=True)
    decide(exchange, rows, credits)


add_rule(Criteria(path=glob("/callbacks/*")), Actions(custom_input=with_callbacks))
add_rule(Criteria(path=glob("/inline/*")), Actions(custom_input=with_inline_callbacks))
add_rule(Criteria(path=glob("/coroutine/*")), Actions(custom_input=with_a_coroutine))
