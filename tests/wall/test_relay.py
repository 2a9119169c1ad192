"""The proxy as a wall over a relay, in memory: nothing that clients or backends write is taken otherwise there."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.relay.gate import MemoryGate
from tests.relay.rig import RelayedRig

from . import test_corpus, test_responses
from .recorder import CountingGate, Wall


class CountingMemoryGate(CountingGate, MemoryGate):
    """A gate that counts, with places at a worker."""


class RelayedWall(Wall):
    """A front and a worker."""

    rig_class = RelayedRig
    gate_class = CountingMemoryGate


class RelayedCorpusTests(test_corpus.Replay, SynchronousTestCase):
    """Hostile clients."""

    wall_class = RelayedWall


class RelayedResponseTests(test_responses.Play, SynchronousTestCase):
    """Backends that answer nonsense."""

    wall_class = RelayedWall
