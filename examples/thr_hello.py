"""
THR's "hello": one application, and a rule that sends all requests to it.

    twistd -n thrproxy --config examples/thr_hello.py

It needs an application at port 9999. The import could be left out: the proxy has these names at hand.
"""

from thrtwisted.dsl import Actions, Criteria, add_queue, add_rule

# What http2redis was told: where requests go.
add_rule(Criteria(), Actions(set_redis_queue="thr:queue:hello"))

# What redis2http was told: which application that is.
add_queue("thr:queue:hello", http_port=9999)
