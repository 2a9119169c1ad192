"""
What a configuration is: immutable structures, the same for a file, a program and the command line.

Every field carries its description, from which the reference in docs/ and the JSON Schema are generated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

# Eleven days: more than anybody waits, and what epoll(7), which counts milliseconds in 32 bits, can be given.
Seconds = Annotated[float, Meta(ge=0, le=1_000_000)]
Positive = Annotated[float, Meta(gt=0, le=1_000_000)]
# Far above any real one; a Lua number holds it exactly.
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        title="a name of 1 to 64 letters, digits, dots, hyphens and underscores",
    ),
]
Priority = Annotated[int, Meta(ge=1, le=99)]
Status = Annotated[int, Meta(ge=200, le=599)]
Match = str | list[str]
Authorities = Annotated[
    str | None,
    Meta(
        description="A file with the certificates (PEM) whose signatures are trusted, with TLS; "
        "absent: those that the system trusts."
    ),
]
OwnCertificate = Annotated[
    str | None,
    Meta(description="A file with a certificate and its key (PEM), with TLS, if one is asked for."),
]
Texts = str | list[str]

#: Marks a field that a program may fill with a function, too. Of the exchange it makes the value, or None for none; and
#: it may return a Deferred or a coroutine of that.
FUNCTION = "function"


class ConfigError(Exception):
    """
    A configuration that cannot be used.

    @ivar problems: one line for each mistake, with its place and its mend.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration."""


class Redis(_Table, frozen=True):
    """Where the slots and queues live, shared by all processes with one namespace."""

    url: Annotated[
        str,
        Meta(
            description="`embedded:` (a server of the proxy's own), "
            "`redis://[user:password@]host[:port][/database]` (of a Redis Cluster any node, or several with commas), "
            "`rediss://` for the same with TLS, `unix:///path`, or `sentinel://host[:port],host[:port]/service`; "
            "see `docs/redis.md`."
        ),
    ] = "embedded:"
    ca: Authorities = None
    certificate: OwnCertificate = None
    namespace: Annotated[
        Name, Meta(description="Processes with the same namespace share slots and queues.")
    ] = "thr"
    timeout: Annotated[
        Positive, Meta(description="Seconds for one operation, past which Redis counts as gone.")
    ] = 0.25
    lease: Annotated[
        Annotated[float, Meta(ge=0.5, le=1_000_000)],
        Meta(
            description="Seconds without a heartbeat after which a process's slots are freed: for so long they stay "
            "taken after a process was killed."
        ),
    ] = 5.0
    outage: Annotated[
        Literal["local", "closed", "open"],
        Meta(
            description="What happens while Redis is gone. `local`: each process goes on with the slots that it had, "
            "later with its share of each limit, and with 1 at least. `closed`: whoever comes is answered 503 with "
            "Retry-After; those who have a place in the queue keep it, and what falls under no limit passes. `open`: "
            "everything passes. In a relay it is `closed`, and whoever comes is answered 503."
        ),
    ] = "local"


class Backend(_Table, frozen=True):
    """An application behind the proxy. The first backend is the default."""

    url: Annotated[
        str | list[str] | None,
        Meta(
            description="`http://host[:port]`, `https://host[:port]` or `unix:///path`; of a list, each request takes "
            "the one with the fewest requests in flight. Only a front of a relay does without."
        ),
    ] = None
    ca: Authorities = None
    certificate: OwnCertificate = None
    max_concurrent: Annotated[
        Count | None,
        Meta(description="Slots of the backend as a whole; absent: no limit."),
    ] = None
    connect_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds to open a connection to a URL, name and TLS included; then the next URL is tried, "
            "or it is 504."
        ),
    ] = 5.0
    response_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds from the request's last byte to the response's head; then 504, "
            "while the slot stays taken as `abandon_timeout` says."
        ),
    ] = 300.0
    abandon_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds that a slot stays taken for a request whose client has left or was answered "
            "504, while the application still works on it. Then the connection is closed."
        ),
    ] = 600.0
    idle_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds without a byte between two pieces of a response's body, past which it counts as cut."
        ),
    ] = 300.0
    keep_alive: Annotated[
        Seconds,
        Meta(
            description="Seconds that an idle connection is kept for the next request without a body whose method is "
            "safe (GET, HEAD, OPTIONS); with `https:` only if `retries` is above 0. Best less than the application "
            "server's own (gunicorn: 2), so that it closes none that is about to be used. 0: each request has a new "
            "connection."
        ),
    ] = 1.0
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=10)],
        Meta(
            description="How many times a request without a body whose method is safe (GET, HEAD, OPTIONS) is sent "
            "again if the backend closes the connection before it answers. It may then be executed more than once. "
            "Above 0, such requests share connections with `https:` too."
        ),
    ] = 0
    down_time: Annotated[
        Seconds,
        Meta(
            description="Seconds for which a URL of several that cannot be connected to gets no requests, "
            "while another can."
        ),
    ] = 10.0
    health: Annotated[
        str | None,
        Meta(
            description="A path such as `/health` that each URL is asked for again and again; one that twice does not "
            "answer with a status from 200 to 399 gets no requests, while another can, until it does. Such questions "
            "take no slots. Absent: no questions."
        ),
    ] = None
    health_interval: Annotated[Positive, Meta(description="Seconds between two questions for `health`.")] = (
        5.0
    )
    queues: Annotated[
        list[str],
        Meta(description="Other names by which a rule's `set_redis_queue` routes to this backend."),
    ] = []
    reclaim_delay: Annotated[
        Seconds,
        Meta(
            description="Seconds for which the slots of a process that died stay taken past its `redis.lease`, because "
            "the application may still be at work on what that process had sent."
        ),
    ] = 0.0
    max_spool: Annotated[
        Annotated[int, Meta(ge=0, le=10**12)],
        Meta(
            description="Bytes of one response kept on disk for a client that reads slower than the backend "
            "writes; past that the backend is slowed down."
        ),
    ] = 256 * 1024 * 1024


class Bounds(_Table, frozen=True):
    """What a client may take. Past a bound it gets a clear answer, and its connection is closed."""

    head_size: Annotated[
        Annotated[int, Meta(ge=256, le=2**20)],
        Meta(description="Bytes of a request's line and headers together; more is answered 431."),
    ] = 32 * 1024
    header_count: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)], Meta(description="Headers of a request; more is answered 431.")
    ] = 100
    target_length: Annotated[
        Annotated[int, Meta(ge=16, le=2**20)],
        Meta(description="Bytes of a request's target; more is answered 414."),
    ] = 8 * 1024
    body_size: Annotated[
        Annotated[int, Meta(ge=0, le=10**12)],
        Meta(description="Bytes of a request's body; more is answered 413, as soon as that is known."),
    ] = 256 * 1024 * 1024
    head_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds for a request's head, from the connection or from the head's first byte; then 408 "
            "(nothing, if nothing came)."
        ),
    ] = 10.0
    body_min_rate: Annotated[
        Count,
        Meta(
            description="Bytes per second that a client must send of a request's body, or read of a response that "
            "waits for it, over any ten seconds; slower, its connection is closed (a request's with 408). 0: no bound."
        ),
    ] = 500
    idle_timeout: Annotated[
        Positive, Meta(description="Seconds without a request after which a connection is closed.")
    ] = 60.0
    requests_per_connection: Annotated[
        Count, Meta(description="After so many requests a connection is closed, in order. 0: no bound.")
    ] = 1000
    connections: Annotated[
        Count,
        Meta(
            description="Connections of clients, of one process. One more closes one that has not sent "
            "anything for more than a second, else the one that has been idle for longest; if none is idle, it is "
            "answered 503 itself. 0: no bound."
        ),
    ] = 8192
    connections_per_client: Annotated[
        Count,
        Meta(
            description="Connections of one client: an IPv4 address, or the first 64 bits of an IPv6 address; one more "
            "is answered 503. `trusted_proxies` have no such bound. 0: no bound."
        ),
    ] = 1024
    spool: Annotated[
        Annotated[int, Meta(ge=0, le=10**15)],
        Meta(
            description="Bytes that one process keeps on disk, of all requests and responses together. A request whose "
            "body does not fit is answered 503, a backend whose response does not fit is slowed down."
        ),
    ] = 4 * 1024 * 1024 * 1024


class Queue(_Table, frozen=True):
    """How long the queue may be, how long a request may stand in it, and in which order."""

    max_waiting: Annotated[
        Count,
        Meta(description="Requests waiting in the namespace; one more gets 503 with Retry-After."),
    ] = 1000
    timeout: Annotated[
        Positive, Meta(description="Seconds that a request may wait, then 503 with Retry-After.")
    ] = 300.0
    aging: Annotated[
        Seconds,
        Meta(
            description="Seconds of waiting that make up for one step of priority, so that nobody starves. "
            "0: priority alone decides."
        ),
    ] = 0.0
    fair: Annotated[
        str | None,
        Meta(
            description="A key as of a limit, such as `header:X-User`: of equal priorities, its values take turns, so "
            "that one user's many requests do not stand before another's first one. Those that lack it share one turn. "
            "Absent: who comes first goes first."
        ),
    ] = None


class Relay(_Table, frozen=True):
    """The way through Redis: fronts have the clients, workers have the applications, and Redis is between them."""

    role: Annotated[
        Literal["front", "worker"],
        Meta(
            description="`front`: this process has the clients, and workers forward what it admits. `worker`: it "
            "listens nowhere; it takes what fronts with its `redis.namespace` admit, and forwards it to its backends. "
            "The rest of the file may be the same for both; a worker does without rules, limits and services, a front "
            "without the backends' URLs."
        ),
    ]
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(
            description="Requests that a worker has in its backends at once, all together: as many as the applications "
            "serve at once."
        ),
    ] = 10
    backends: Annotated[
        list[Name],
        Meta(description="The backends that a worker serves; an empty list means all that the file has."),
    ] = []
    max_inline: Annotated[
        Annotated[int, Meta(ge=4096, le=2**27)],
        Meta(
            description="Bytes of one exchange that stand in Redis at once, at most. Longer bodies follow in pieces, "
            "as fast as the other side takes them."
        ),
    ] = 1024 * 1024
    retry: Annotated[
        Literal["never", "safe"],
        Meta(
            description="What happens to a request with which a worker had begun when it died. `never`: 502. `safe`: "
            "it goes to another worker, once, if its method is safe (GET, HEAD, OPTIONS), and then it may be executed "
            "twice; after the backend's `reclaim_delay`. Once its response has begun, that is cut. A request with "
            "which the worker had certainly not begun goes to another one in any case, whatever its method."
        ),
    ] = "never"


class Auth(_Table, frozen=True):
    """An external service that says who may pass. A rule's `auth` names it."""

    url: Annotated[
        str,
        Meta(
            description="What is asked, with GET: `http://host[:port]/path`, `https://…`, or `unix:///path` "
            "(which is asked for `/`). An answer from 200 to 299 lets the request go on; 401, 403 and redirects are "
            "passed on to the client as they are; anything else is 502, or as `on_error` says."
        ),
    ]
    ca: Authorities = None
    certificate: OwnCertificate = None
    send_headers: Annotated[
        list[str],
        Meta(
            description="Headers of the request that are sent along. `X-Forwarded-Method`, `-Uri`, `-Host`, `-Proto` "
            "and `-For` always are."
        ),
    ] = msgspec.field(default_factory=lambda: ["Authorization"])
    copy_headers: Annotated[
        list[str],
        Meta(
            description="Headers of the service's answer that are set on the request, for limits, priorities and the "
            "application. What clients send under these names is removed from all requests, whatever the answer; "
            "but if `send_headers` has it too, only where the service is asked."
        ),
    ] = []
    timeout: Annotated[
        Positive, Meta(description="Seconds for the service's answer, from the connection to its last byte.")
    ] = 5.0
    max_concurrent: Annotated[
        Count | None,
        Meta(
            description="How many questions at once, over all processes; more wait in the queue. Absent: no limit."
        ),
    ] = None
    max_waiting: Annotated[
        Count | None,
        Meta(
            description="Questions that wait for `max_concurrent`; one more gets 503 with Retry-After, so that a slow "
            "service does not fill the queue. Absent: `queue.max_waiting` alone counts."
        ),
    ] = None
    on_error: Annotated[
        Literal["deny", "allow"],
        Meta(
            description="What becomes of requests while the service gives no answer, or none that is meant for a "
            "client. `deny`: 502. `allow`: they pass, without any of `copy_headers`."
        ),
    ] = "deny"
    cache: Annotated[
        Seconds,
        Meta(
            description="Seconds for which an answer (200 to 299, 401, 403) holds for all requests with the same "
            "`send_headers` and `cache_by`, unless its Cache-Control says less. 0: every request is asked about."
        ),
    ] = 0.0
    cache_by: Annotated[
        list[str],
        Meta(
            description="What else an answer hangs on, as keys of a limit: `method`, `path`, `client`, … Name here "
            "whatever the service looks at beside `send_headers`."
        ),
    ] = []
    cache_size: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Meta(
            description="Answers that are remembered; past that, the one not used for longest is forgotten."
        ),
    ] = 10_000


class Limit(_Table, frozen=True):
    """Requests with the same key value share at most `max_concurrent` slots, or `rate` requests in a time."""

    name: Annotated[Name, Meta(description="Names the limit in messages and in Redis.")]
    max_concurrent: Annotated[
        Count | None,
        Meta(
            description="How many at once. 0: everybody waits, until it is raised or their time is over. Absent: any "
            "number, where there is a `rate`."
        ),
    ] = None
    rate: Annotated[
        str | None,
        Meta(
            description="How many in a time, evenly spaced: `100/min`, of `s`, `min`, `hour` or `day`. Absent: any "
            "number, where there is `max_concurrent`."
        ),
    ] = None
    burst: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Meta(
            description="How many of the `rate` may come at once after a quiet time. As high as the rate's number, it "
            "makes a quota of it."
        ),
    ] = 1
    over: Annotated[
        Literal["wait", "reject", "demote"],
        Meta(
            description="What becomes of a request over the `rate`. `wait`: it waits in the queue until it may go. "
            "`reject`: it gets 429 with Retry-After. `demote`: it does not count, and goes on with the priority "
            "`demote_to`, so that it yields to all others."
        ),
    ] = "wait"
    demote_to: Annotated[
        Priority, Meta(description="The priority of a demoted request, unless its own is worse.")
    ] = 90
    headers: Annotated[
        bool,
        Meta(
            description="Responses carry `RateLimit` and `RateLimit-Policy`: what the limit is and what is left of it."
        ),
    ] = False
    key: Annotated[
        str | None,
        Meta(
            description="`header:NAME`, `cookie:NAME`, `query:NAME`, `path`, `method`, `host`, `client`, "
            "`remote_ip`, or `python:module:function` (called with the exchange; a text, bytes, or None for no limit). "
            "Absent: the limit applies to every request.",
            extra={FUNCTION: True},
        ),
    ] = None
    match: Annotated[
        Match | None,
        Meta(
            description="Only requests whose key matches, and all of them share one counter: `text`, "
            "`glob:a*`, `regexp:[a-z]+`, `not:text`; of a list, any but those it negates. "
            "Without it each distinct value has its own."
        ),
    ] = None
    default: Annotated[
        str | None,
        Meta(description="The key of a request that lacks it; without it the limit does not apply."),
    ] = None
    weight: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | str,
        Meta(
            description="How many of the slots a request takes: a number, or `python:module:function` (called with the "
            "exchange). One that is heavier than the limit runs alone.",
            extra={FUNCTION: True},
        ),
    ] = 1
    max_waiting: Annotated[
        Count | None,
        Meta(
            description="Requests waiting that share the slots; one more gets 503 with Retry-After, so that one user "
            "cannot fill the queue. Absent: `queue.max_waiting` alone counts."
        ),
    ] = None
    show_in_stats: Annotated[bool, Meta(description="Whether the metrics show each of its counters.")] = True


class When(_Table, frozen=True):
    """What a request must be for a rule to apply: every criterion named, each a match or a list of them."""

    path: Annotated[Match | None, Meta(description="The target's path, as sent.")] = None
    method: Annotated[Match | None, Meta(description="The method.")] = None
    host: Annotated[Match | None, Meta(description="The Host header in lower case, without port.")] = None
    client: Annotated[
        Match | None, Meta(description="The client's address, as `trusted_proxies` tell it.")
    ] = None
    real_ip: Annotated[Match | None, Meta(description="The same as `client`.")] = None
    remote_ip: Annotated[
        Match | None,
        Meta(description="The address that the connection comes from: a proxy's, if there is one."),
    ] = None
    header: Annotated[
        dict[str, Match], Meta(description="Header names, each with what its value must be.")
    ] = {}
    cookie: Annotated[
        dict[str, Match], Meta(description="Cookie names, each with what its value must be.")
    ] = {}
    query: Annotated[
        dict[str, Match],
        Meta(description="Names of query arguments, each with what its (first) value must be."),
    ] = {}
    custom: Annotated[
        str | None,
        Meta(
            description="`python:module:function`, called with the exchange: whether the rule applies.",
            extra={FUNCTION: True},
        ),
    ] = None


def _action(description: str) -> Meta:
    return Meta(description=description, extra={FUNCTION: True})


class Then(_Table, frozen=True):
    """What a rule does, in the order of this table. A text may not be empty where nothing else is said."""

    custom_input: Annotated[
        str | None,
        _action("`python:module:function`, called with the exchange before all else; it may change it."),
    ] = None
    set_custom_value: Annotated[
        dict[Any, Any], _action("Values kept with the exchange under these names, for functions.")
    ] = {}
    del_custom_value: Annotated[Texts, _action("Names of values that are kept no more.")] = []
    set_method: Annotated[str | None, _action("The method that the backend sees.")] = None
    set_path: Annotated[
        str | None, _action("The path that the backend sees, percent-encoded; the query stays.")
    ] = None
    set_query_string: Annotated[
        str | None, _action("The query that the backend sees, percent-encoded, without `?`; empty for none.")
    ] = None
    set_query_string_arg: Annotated[
        dict[str, Texts], _action("Query arguments, in place of those of the same names.")
    ] = {}
    add_query_string_arg: Annotated[
        dict[str, Texts], _action("Query arguments, beside those of the same names.")
    ] = {}
    del_query_string_arg: Annotated[Texts, _action("Names of query arguments that are taken away.")] = []
    set_host: Annotated[str | None, _action("The Host header that the backend sees.")] = None
    set_remote_ip: Annotated[
        str | None,
        _action("The client's address, for the rules that follow and the limits."),
    ] = None
    set_input_header: Annotated[
        dict[str, Texts], _action("Headers set on the request before it is forwarded.")
    ] = {}
    add_input_header: Annotated[
        dict[str, Texts], _action("Headers added to the request, beside those of the same names.")
    ] = {}
    del_input_header: Annotated[Texts, _action("Names of headers taken away from the request.")] = []
    set_input_body: Annotated[
        str | None, _action("The request's body, in place of its own; may be empty.")
    ] = None
    auth: Annotated[
        str | None, _action("The name of the service, a table `[auth.NAME]`, that says whether it may pass.")
    ] = None
    priority: Annotated[
        Priority | str | None,
        _action(
            "1 (best) to 99 (worst); or a key as of a limit, such as `header:X-Priority`: the nearest of these "
            "numbers to its value, if that is a number."
        ),
    ] = None
    set_input_priority: Annotated[Priority | str | None, _action("The same as `priority`.")] = None
    backend: Annotated[str | None, _action("The name of the backend to forward to.")] = None
    set_redis_queue: Annotated[
        str | None,
        _action("The backend to forward to, by one of its `queues` or its name; `null` answers 404."),
    ] = None
    set_redis_host: Annotated[str | None, _action("Where Redis is; it has to be the same everywhere.")] = None
    set_redis_port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        _action("Where Redis is; it has to be the same everywhere."),
    ] = None
    set_redis_uds: Annotated[str | None, _action("Where Redis is; it has to be the same everywhere.")] = None
    set_status_code: Annotated[
        Status | None, _action("Answer with this status, without forwarding, once all rules are through.")
    ] = None
    custom_output: Annotated[
        str | None,
        _action(
            "`python:module:function`, called with the exchange once the response's head is there; it may change it."
        ),
    ] = None
    set_output_header: Annotated[dict[str, Texts], _action("Headers set on the response.")] = {}
    add_output_header: Annotated[
        dict[str, Texts], _action("Headers added to the response, beside those of the same names.")
    ] = {}
    del_output_header: Annotated[Texts, _action("Names of headers taken away from the response.")] = []
    set_output_body: Annotated[
        str | None, _action("The response's body, in place of its own; may be empty.")
    ] = None
    set_output_default_body: Annotated[
        str | None,
        _action(
            "The response's body, if it is an answer of `set_status_code` or to an error of the proxy's, or has none."
        ),
    ] = None


class Rule(_Table, frozen=True):
    """Rules apply in order, until one that matches says `stop`."""

    name: Annotated[str | None, Meta(description="Names the rule in messages.")] = None
    when: Annotated[When, Meta(description="Which requests; absent: all.")] = When()
    then: Annotated[Then, Meta(description="What to do with them.")] = Then()
    stop: Annotated[bool, Meta(description="Look at no further rule after this one.")] = False


class Config(_Table, frozen=True):
    """The whole configuration."""

    listen: Annotated[
        str | list[str],
        Meta(
            description="Twisted server endpoint strings, or one of them: `tcp:8888`, `unix:/run/proxy.sock`, "
            "`ssl:443:privateKey=key.pem:certKey=certificate.pem`; behind `haproxy:` for a load balancer that speaks "
            "the PROXY protocol."
        ),
    ] = "tcp:8888"
    redis: Annotated[
        Redis | None,
        Meta(description="Absent: limits and queue are this process's own, in memory."),
    ] = None
    relay: Annotated[
        Relay | None,
        Meta(description="Absent: the proxy forwards to its backends itself, without workers in between."),
    ] = None
    backend: Annotated[dict[Name, Backend], Meta(description="The applications, by name; at least one.")] = {}
    auth: Annotated[dict[Name, Auth], Meta(description="Services that say who may pass, by name.")] = {}
    bounds: Annotated[Bounds, Meta(description="What a client may take.")] = Bounds()
    queue: Annotated[Queue, Meta(description="The queue.")] = Queue()
    limit: Annotated[list[Limit], Meta(description="The limits; each applies where its key is present.")] = []
    rule: Annotated[list[Rule], Meta(description="The rules, in order.")] = []
    rule_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds that functions of the rules may take, together, for one request on its way in, and as "
            "many on its way out; then 500."
        ),
    ] = 30.0
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses and networks (`10.0.0.0/8`) of proxies before this one, or `unix:` for whoever "
            "comes over a unix socket. Only from these `X-Forwarded-*` and `Forwarded` are believed, and appended to; "
            "from all others they are replaced."
        ),
    ] = []
    server_timing: Annotated[
        bool,
        Meta(
            description="Responses carry `Server-Timing: queue;dur=…, backend;dur=…`: milliseconds in the queue, and "
            "from there to the backend's answer; before these `rules;dur=…` where functions of rules, or services, "
            "were waited for, on both ways."
        ),
    ] = True
    shutdown_timeout: Annotated[
        Seconds,
        Meta(description="Seconds that a stopping proxy waits for the requests that are in the backend."),
    ] = 10.0


def urls(backend: Backend) -> list[str]:
    """Where a backend is; nowhere on a front of a relay that leaves that to the workers."""
    return [backend.url] if isinstance(backend.url, str) else backend.url or []


def served(relay: Relay, config: Config) -> list[str]:
    """The names of the backends that a worker serves."""
    return relay.backends or list(config.backend)


def default_backend(config: Config) -> str:
    """The name of the first backend."""
    return next(iter(config.backend))


def schema() -> bytes:
    """The JSON Schema of a configuration, for editors that check TOML while it is written."""
    described = msgspec.json.schema(Config)
    described["title"] = "The configuration of thrtwisted"
    return msgspec.json.format(msgspec.json.encode(described), indent=2)
