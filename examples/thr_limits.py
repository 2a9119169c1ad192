"""
THR's limits: of the requests with the header C{Foo: bar} two at once are in the application, and any number of others.

    twistd -n thrproxy --config examples/thr_limits.py

It needs an application at port 9999. If that takes a second for a request, ten at once take 5 s with the header, and
1 s without:

    ab -n 10 -c 10 -H "Foo: bar" http://127.0.0.1:8888/
    ab -n 10 -c 10 http://127.0.0.1:8888/
"""

from typing import Any

from thrtwisted.dsl import Actions, Criteria, add_max_limit, add_queue, add_rule, glob


def foo(request: Any) -> str | None:
    """What is counted. Without the header there is no limit."""
    value: str | None = request.headers.get("Foo")
    return value


add_rule(Criteria(path=glob("/*")), Actions(set_redis_queue="thr:queue:work"))
add_queue("thr:queue:work", http_port=9999)
add_max_limit("foo", foo, "bar", 2)
