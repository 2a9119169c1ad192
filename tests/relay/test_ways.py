"""What is so on the direct way to the backends is so over a relay, too: the same tests, in memory, over both."""

from __future__ import annotations

from tests import test_resource
from tests.auth import test_way
from tests.limits import test_regulation
from tests.relay.rig import RelayedRig
from tests.rules import test_resource_rules


class RelayedForwardedTests(test_resource.ForwardedTests):
    """Exchanges that go all the way."""

    rig_class = RelayedRig


class RelayedQueueTests(test_resource.QueueTests):
    """Exchanges that wait, and clients that leave."""

    rig_class = RelayedRig


class RelayedAnsweredTests(test_resource.AnsweredTests):
    """Exchanges that are answered here, for there is no response."""

    rig_class = RelayedRig


class RelayedMistakeTests(test_resource.MistakeTests):
    """What mistakes cost."""

    rig_class = RelayedRig


class RelayedReleaseTests(test_resource.ReleaseTests):
    """Slots are given back once, whatever happens."""

    rig_class = RelayedRig


class RelayedRequestRulesTests(test_resource_rules.RequestTests):
    """Rules and requests."""

    rig_class = RelayedRig


class RelayedAnswerRulesTests(test_resource_rules.AnswerTests):
    """Rules that answer."""

    rig_class = RelayedRig


class RelayedErrorRulesTests(test_resource_rules.ErrorTests):
    """Rules and the proxy's own answers."""

    rig_class = RelayedRig


class RelayedResponseRulesTests(test_resource_rules.ResponseTests):
    """Rules and responses, which they may read."""

    rig_class = RelayedRig


class RelayedRuleMistakeTests(test_resource_rules.MistakeTests):
    """Mistakes in rules."""

    rig_class = RelayedRig


class RelayedLeavingTests(test_resource_rules.LeavingTests):
    """Clients that leave while rules are asked."""

    rig_class = RelayedRig


class RelayedTimingTests(test_resource_rules.TimingTests):
    """What clients are told of the time."""

    rig_class = RelayedRig


class RelayedExpectTests(test_resource_rules.ExpectTests):
    """Clients that ask leave to send a body."""

    rig_class = RelayedRig


class RelayedWayTests(test_way.WayTests):
    """Requests that a service is asked about."""

    rig_class = RelayedRig


class RelayedContinueTests(test_way.ContinueTests):
    """Clients that ask leave to send a body, and a service that is asked."""

    rig_class = RelayedRig


class RelayedRegulationTests(test_regulation.RegulationTests):
    """Rates, fairness, and what clients are told of them."""

    rig_class = RelayedRig
