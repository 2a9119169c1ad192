"""The command C{twistd thrproxy}. It names the module that does the work, and imports nothing of it."""

from twisted.application.service import ServiceMaker

thrproxy = ServiceMaker(
    "thrtwisted",
    "thrtwisted.tap",
    "A reverse proxy that regulates requests to a slow application",
    "thrproxy",
)
