"""Forwarding of exchanges to the backends, through treq."""

from .body import RequestBody
from .client import Forwarder
from .forwarding import Forwarding
from .headers import end_to_end, origin_form

__all__ = ["Forwarder", "Forwarding", "RequestBody", "end_to_end", "origin_form"]
