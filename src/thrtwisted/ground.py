"""What a process stands on: its gate, the Redis behind it, and with a relay the post. All start and stop together."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.logger import Logger

from .config import Config, ConfigError
from .gate.local import LocalGate
from .gate.redis import RedisGate
from .redis import ISource
from .redis.embedded import EmbeddedServer, EmbeddedServerError, installed_server
from .redis.source import source_of
from .redis.url import RedisAddress, parse
from .relay.post import Post

#: What a relay's half says of an outage. The policy of its gate would be half of the truth.
MEANWHILE = {
    "front": "new requests get 503 until it does; what workers have goes on then",
    "worker": "until it does nothing comes from fronts, and answers wait here",
}


class Ground:
    """
    @ivar gate: what the configuration says that regulates.
    @ivar post: what a front or a worker talks by; None without a relay.
    @ivar embedded: the server of Redis, if it is this process's own.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: Config) -> None:
        """@raise ConfigError: the configuration cannot be used on this machine."""
        self.post: Post | None = None
        self.embedded: EmbeddedServer | None = None
        self._reactor = reactor
        self._source: ISource | None = None
        self._starting: Deferred[None] = succeed(None)
        self.gate: LocalGate | RedisGate = self._make_gate(config)

    def start(self) -> None:
        """Connect to Redis, after its server has started if it is embedded."""
        if isinstance(self.gate, RedisGate):
            self._starting = self._start(self.gate)

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """
        Send what is on its way, give back what is held, and close all.

        @return: fires when no connection, process or timer is left. Never errbacks.
        """
        self._starting.cancel()
        yield self._starting
        if self.post is not None:
            yield self.post.stop()  # first: nobody takes this process for lost that has said its last word
        yield self.gate.stop()
        if self.embedded is not None:
            yield self.embedded.stop()

    def _make_gate(self, config: Config) -> LocalGate | RedisGate:
        queue, redis = config.queue, config.redis
        if redis is None:
            return LocalGate(self._reactor, max_waiting=queue.max_waiting, aging=queue.aging)
        if parse(redis.url).kind == "embedded":
            try:
                installed_server()
            except EmbeddedServerError as error:
                raise ConfigError([f"redis.url: {error}"]) from None
            self.embedded = EmbeddedServer(self._reactor)
        else:
            # Now: a process that gives up its rights later could not read the files any more.
            self._source = source_of(redis.url, redis.ca, redis.certificate)
        gate = RedisGate(
            self._reactor,
            namespace=redis.namespace,
            timeout=redis.timeout,
            lease=redis.lease,
            # Without Redis there is no way to a worker, whatever the gate would decide.
            outage=redis.outage if config.relay is None else "closed",
            meanwhile=None if config.relay is None else MEANWHILE[config.relay.role],
            max_waiting=queue.max_waiting,
            aging=queue.aging,
        )
        if config.relay is not None:
            self.post = Post(
                self._reactor,
                redis.namespace,
                gate.owner,
                timeout=redis.timeout,
                lease=redis.lease,
                redis_answers=lambda: gate.answering,
            )
        return gate

    @inlineCallbacks
    def _start(self, gate: RedisGate) -> Generator[Deferred[Any], Any, None]:
        if self.embedded is not None:
            try:
                path = yield self.embedded.start()
            except CancelledError:
                return  # the service was stopped meanwhile
            except (EmbeddedServerError, OSError) as error:
                self._log.critical("{error}", error=error)
                gate.give_up()
                return
            self._source = source_of(RedisAddress("unix", path=path))
        assert self._source is not None
        gate.start(self._source)
        if self.post is not None:
            self.post.connect(self._source)
