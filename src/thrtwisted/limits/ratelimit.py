"""
What responses tell of limits: the C{RateLimit-Policy} and C{RateLimit} fields of
draft-ietf-httpapi-ratelimit-headers-11.

Both are lists of structured fields (RFC 9651): strings that name policies, with parameters. A policy is what a limit
says, and so the same in each response; the other field tells what is left of it. A limit with slots and with a rate is
two policies: C{per-user} is its rate, C{per-user:concurrent} its slots.

A backend may have policies of its own. As these are lists, ours are added in a field beside its own: an intermediary
must not take away what the origin says (section 7.2), and clients have to heed each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import attrs
from twisted.web.http_headers import Headers

from thrtwisted.config import Limit
from thrtwisted.gate import Counter, Quota

from .rate import Allowance, read_allowance

POLICY = b"RateLimit-Policy"
LIMIT = b"RateLimit"

#: What tells the policy of a limit's slots from that of its rate: no limit's name has a colon.
_CONCURRENT = ":concurrent"


@attrs.frozen
class Policy:
    """
    What responses tell of one limit.

    @ivar name: the limit's.
    @ivar slots: how many it has; None for any number.
    @ivar allowance: what its rate says; None if it has none.
    """

    name: str
    slots: int | None
    allowance: Allowance | None

    def items(self) -> list[str]:
        """Its items of C{RateLimit-Policy}."""
        items = []
        if self.allowance is not None:
            items.append(f'"{self.name}";q={self.allowance.number};w={self.allowance.window}')
        if self.slots is not None:
            items.append(f'"{self._of_slots}";q={self.slots};qu="concurrent-requests"')
        return items

    def left(self, quota: Quota) -> list[str]:
        """
        Its items of C{RateLimit}.

        The time is that until as many as ever may come at once: within it no more than what is left are sure to go at
        once. Slots come free when others do, which nobody knows: they have none.
        """
        items = []
        if self.allowance is not None and quota.tickets is not None:
            items.append(f'"{self.name}";r={quota.tickets};t={ceil(quota.full_in)}')
        if self.slots is not None:
            items.append(f'"{self._of_slots}";r={min(quota.slots, self.slots)}')
        return items

    @property
    def _of_slots(self) -> str:
        return self.name if self.allowance is None else self.name + _CONCURRENT


class Policies:
    """What responses tell of the limits of a configuration."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._by_name = {
            limit.name: Policy(
                limit.name,
                limit.max_concurrent,
                None if limit.rate is None else read_allowance(limit.rate),
            )
            for limit in limits
            if limit.headers
        }

    def of(self, counters: Sequence[Counter]) -> Fields | None:
        """What the response to an exchange tells that needs these counters; None if that is nothing."""
        if not self._by_name:
            return None
        policies = {
            counter.key: self._by_name[_limit(counter)]
            for counter in counters
            if counter.shown and _limit(counter) in self._by_name
        }
        return Fields(counters, policies) if policies else None


class Fields:
    """
    What the response to one exchange tells.

    @param policies: by the counters' keys.
    """

    def __init__(self, counters: Sequence[Counter], policies: Mapping[str, Policy]) -> None:
        self._counters = counters
        self._policies = policies
        self._left: list[str] = []

    def admitted(self, quotas: Mapping[str, Quota]) -> None:
        """The exchange was admitted, and so much is left."""
        self._left = [
            item
            for key, policy in self._policies.items()
            if key in quotas
            for item in policy.left(quotas[key])
        ]

    def rejected(self, retry_after: float) -> None:
        """
        The exchange was over a rate that rejects.

        Whose that was is told if only one of its limits rejects: of the others nothing is known.

        @param retry_after: seconds after which it may come again, which is also when something is left.
        """
        rejecting = [
            counter.key for counter in self._counters if counter.rate and counter.rate.over == "reject"
        ]
        if len(rejecting) == 1 and (policy := self._policies.get(rejecting[0])) is not None:
            self._left = [f'"{policy.name}";r=0;t={max(1, ceil(retry_after))}']

    def write_to(self, headers: Headers) -> None:
        """Add the fields to those of a response, beside what the backend may say of its own."""
        policies = [item for policy in self._policies.values() for item in policy.items()]
        headers.addRawHeader(POLICY, ", ".join(policies).encode("ascii"))
        if self._left:
            headers.addRawHeader(LIMIT, ", ".join(self._left).encode("ascii"))


def _limit(counter: Counter) -> str:
    """The name of a counter's limit, which has no equals sign."""
    return counter.key.partition("=")[0]
