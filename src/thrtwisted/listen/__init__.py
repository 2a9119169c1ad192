"""
Where clients come in: ports (L{port}), and what they serve (L{site}): requests that are read strictly (L{head},
L{chunks}) from connections that are bounded (L{channel}).
"""

from .port import Listener, endpoint

__all__ = ["Listener", "endpoint"]
