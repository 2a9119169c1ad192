"""Tests of thrtwisted.limits.ratelimit."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.exchange.test_exchange import exchange
from thrtwisted.config import Config, Limit
from thrtwisted.gate import Quota
from thrtwisted.limits import Limits
from thrtwisted.limits.ratelimit import Fields

BOTH = Limit(name="user", key="client", max_concurrent=4, rate="100/min", burst=20, headers=True)
SLOTS = Limit(name="all", max_concurrent=30, headers=True)
HIDDEN = Limit(name="hidden", max_concurrent=2, rate="5/s", over="reject")


def fields(*limits: Limit) -> Fields:
    """What a response tells of these limits, all of which apply."""
    compiled = Limits(Config(limit=list(limits)))
    found = compiled.policies.of(compiled.counters(exchange()))
    assert found is not None
    return found


def written(found: Fields, headers: dict[str, list[str]] | None = None) -> dict[bytes, Any]:
    """The fields of a response."""
    result = Headers(headers)
    found.write_to(result)
    return {name.lower(): values for name, values in result.getAllRawHeaders()}


class FieldsTests(SynchronousTestCase):
    """The fields RateLimit-Policy and RateLimit."""

    def test_nothing(self) -> None:
        """Of limits that do not show themselves, or do not apply, nothing is told."""
        for limit in (
            HIDDEN,
            Limit(name="l", key="header:Foo", max_concurrent=1, headers=True),
        ):
            limits = Limits(Config(limit=[limit]))
            self.assertIsNone(limits.policies.of(limits.counters(exchange())))

    def test_policies(self) -> None:
        """A rate is told as it was said, slots are concurrent requests; the limit's key value is nobody's business."""
        self.assertEqual(
            written(fields(HIDDEN, BOTH, SLOTS)),
            {
                b"ratelimit-policy": [
                    b'"user";q=100;w=60, "user:concurrent";q=4;qu="concurrent-requests", '
                    b'"all";q=30;qu="concurrent-requests"'
                ]
            },
        )

    def test_left(self) -> None:
        """What is left is told of what is known: tickets with the time, in whole seconds, in which all come back."""
        found = fields(HIDDEN, BOTH, SLOTS)
        found.admitted({"user=192.0.2.1": Quota(3, 19, 0.6), "hidden": Quota(1, 1, 1.0), "another": Quota(1)})
        self.assertEqual(written(found)[b"ratelimit"], [b'"user";r=19;t=1, "user:concurrent";r=3'])
        for free, left in ((29, 29), (0, 0), (2**53, 30)):
            found.admitted({"all": Quota(free)})
            self.assertEqual(written(found)[b"ratelimit"], [b'"all";r=%d' % left])

    def test_not_counted(self) -> None:
        """A rate of which the gate knows nothing, as while Redis is gone, has no number."""
        found = fields(Limit(name="l", rate="100/min", headers=True))
        found.admitted({"l": Quota(2**53)})
        self.assertEqual(list(written(found)), [b"ratelimit-policy"])

    def test_rejected(self) -> None:
        """Nothing is left of a rate that rejects, until the time that Retry-After names."""
        limit = Limit(name="l", rate="100/min", over="reject", headers=True)
        found = fields(BOTH, limit)
        found.rejected(0.2)
        self.assertEqual(written(found)[b"ratelimit"], [b'"l";r=0;t=1'])
        found.rejected(7.1)
        self.assertEqual(written(found)[b"ratelimit"], [b'"l";r=0;t=8'])

    def test_rejected_by_one_of_two(self) -> None:
        """Where two limits reject, or the one that does is not shown, nobody is blamed."""
        limit = Limit(name="l", rate="100/min", over="reject", headers=True)
        for found in (fields(HIDDEN, limit), fields(HIDDEN, BOTH)):
            found.rejected(1.0)
            self.assertNotIn(b"ratelimit", written(found))

    def test_backend(self) -> None:
        """What the backend says of its own limits stays, in fields before ours."""
        headers = {"RateLimit-Policy": ['"own";q=5;w=1'], "RateLimit": ['"own";r=4;t=1']}
        found = fields(SLOTS)
        found.admitted({"all": Quota(7)})
        self.assertEqual(
            written(found, headers),
            {
                b"ratelimit-policy": [b'"own";q=5;w=1', b'"all";q=30;qu="concurrent-requests"'],
                b"ratelimit": [b'"own";r=4;t=1', b'"all";r=7'],
            },
        )
