"""Authentication and authorisation: an external service is asked who may pass, and who it is."""

from .authenticator import Authenticator

__all__ = ["Authenticator"]
