"""
What is true of a proxy is true of a front and a worker: the same tests, over the relay.

The cases are named by their modules, so that they are not run once more from here. Of some, a few tests are enough.
"""

from __future__ import annotations

from tests.integration import (
    test_answers,
    test_bodies,
    test_bounds,
    test_clients,
    test_cluster,
    test_example,
    test_fair,
    test_lost_replies,
    test_memory_loss,
    test_outage,
    test_places,
    test_rates,
    test_redis_cluster,
    test_semantics,
    test_sentinel,
    test_stop,
)
from tests.integration.harness import until
from tests.integration.relayed import Relayed
from tests.integration.servers import ONE, ServerCase
from tests.integration.test_places import documented_rights


class AnswersOverRelayTests(Relayed, test_answers.AnswerTests):
    """Answers that are no application's, and responses that are cut."""


class BodiesOverRelayTests(Relayed, test_bodies.BodyTests):
    """50 MB each way; every byte is looked at."""

    size = 50_000_000


class HeadsOverRelayTests(Relayed, test_bounds.HeadTests):
    """Requests that are too much."""


class ClientsOverRelayTests(Relayed, test_clients.ClientTests):
    """Clients that leave, or read slowly."""


class OrderOverRelayTests(Relayed, test_cluster.OrderTests):
    """Two fronts and two workers: one queue."""


class ExampleOverRelayTests(Relayed, test_example.ExampleCase):
    """THR's example."""

    test_waitress = test_example.ExampleTests.test_waitress


class FairnessOverRelayTests(Relayed, test_fair.FairTests):
    """Users take turns."""


class QuotasOverRelayTests(Relayed, test_rates.RatesCase):
    """Requests over a quota."""

    test_reject = test_rates.QuotaTests.test_reject
    test_demote = test_rates.QuotaTests.test_demote


class SemanticsOverRelayTests(Relayed, test_semantics.SemanticsTests):
    """Byte for byte, HEAD, interim responses, and what is none."""


class StopOverRelayTests(Relayed, test_stop.StopTests):
    """The end of a front."""


class OutageOverRelayTests(Relayed, test_outage.ClosedTests):
    """Redis is gone."""


class MemoryLossOverRelayTests(Relayed, test_memory_loss.ClosedTests):
    """Redis forgets everything."""


class LostRepliesOverRelayTests(Relayed, test_lost_replies.CutCase):
    """Connections to Redis that are cut."""

    settings = test_lost_replies.LostTests.settings
    test_cut = test_lost_replies.LostTests.test_cut


class RightsOverRelayTests(Relayed, ServerCase):
    """What a user of Redis has to be allowed."""

    async def test_rights(self) -> None:
        """The rules for the gate and for the relay are enough, whatever happens."""
        self.main = await self.started()
        rights = [right.replace("{thr}", f"{{{self.namespace}}}") for right in documented_rights(relay=True)]
        self.main.do("ACL", "SETUSER", "thr", "on", ">pass", *rights)
        self.redis = f"redis://thr:pass@{self.main.place}/1"
        self.main.login["db"] = 1
        backend, front = await self.proxied()
        await self.regulated(backend, front, "a-")
        answer = await self.ask(front, "/bytes/large?size=3000000").answer
        self.assertTrue(answer.complete)
        self.main.do("SCRIPT", "FLUSH")
        await self.regulated(backend, front, "b-")
        lost = self.ask(front, "/hold/lost", ONE)
        await backend.begun("lost")
        await self.workers[0].signal("KILL")
        self.assertEqual((await lost.answer).status, 502)
        await self.proxied(backend)
        self.main.do("FLUSHALL")
        await self.regulated(backend, front, "c-")
        doomed = self.ask(front, "/hold/doomed", ONE)
        await backend.begun("doomed")
        await front.signal("KILL")
        self.assertEqual((await doomed.answer).status, 0)
        await self.let(backend, "doomed")
        await until(lambda: not self.admitted())
        await self.workers[1].signal("TERM")
        self.assertEqual(self.main.do("ACL", "LOG"), [])


class TLSOverRelayTests(Relayed, ServerCase):
    """C{rediss://}"""

    test_user = test_places.TLSTests.test_user


class SentinelOverRelayTests(Relayed, test_sentinel.SentinelCase):
    """A sentinel says where Redis is."""

    test_failover = test_sentinel.SentinelTests.test_failover


class RedisClusterOverRelayTests(Relayed, test_redis_cluster.ClusterCase):
    """A node of a cluster has the namespace."""

    test_any_node = test_redis_cluster.RestTests.test_any_node
