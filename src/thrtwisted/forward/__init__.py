"""Forwarding of exchanges to the backends, through treq."""

from .body import RequestBody
from .client import Forwarder
from .forwarding import Forwarding
from .headers import end_to_end, origin_form
from .interfaces import IForwarder, IForwarding

__all__ = [
    "Forwarder",
    "Forwarding",
    "IForwarder",
    "IForwarding",
    "RequestBody",
    "end_to_end",
    "origin_form",
]
