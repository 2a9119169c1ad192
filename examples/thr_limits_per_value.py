"""
THR's limits, for each value: of the requests that have the same header C{Foo}, two at once are in the application.

    twistd -n thrproxy --config examples/thr_limits_per_value.py

It needs an application at port 9999. Each value has two slots of its own, so that nobody waits for another's requests:

    ab -n 10 -c 10 -H "Foo: one" http://127.0.0.1:8888/
    ab -n 10 -c 10 -H "Foo: two" http://127.0.0.1:8888/
"""

from typing import Any

from thrtwisted.dsl import Actions, Criteria, add_max_limit, add_queue, add_rule


def foo(request: Any) -> str | None:
    """What is counted. Without the header there is no limit."""
    value: str | None = request.headers.get("Foo")
    return value


add_rule(Criteria(), Actions(set_redis_queue="thr:queue:work"))
add_queue("thr:queue:work", http_port=9999)

# The function in place of a value: each value that it returns is counted alone.
add_max_limit("foo", foo, foo, 2)
