"""Where clients come in: ports, and the site that serves them."""

from .port import Listener, endpoint
from .site import PatientSite

__all__ = ["Listener", "PatientSite", "endpoint"]
