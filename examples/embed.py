"""
The proxy inside another Twisted application, beside resources of that application's own.

    python examples/embed.py            # or, as a service: twistd -n -y examples/embed.py
    curl http://127.0.0.1:8080/         # a page of this program
    curl http://127.0.0.1:8080/app/     # what the application behind says, through the proxy

It needs something behind: python -m http.server 9999, for instance. The environment variables LISTEN and BACKEND
name other places.
"""

import os
import sys

from twisted.application.app import startApplication
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from thrtwisted import Config, Proxy
from thrtwisted.config import Backend, Limit

LISTEN = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
BACKEND = os.environ.get("BACKEND", "http://127.0.0.1:9999")

# The structures that a configuration file is read into. With redis=Redis(url="redis://localhost"), too, the limit
# holds over all processes; without, over this one.
config = Config(
    backend={"app": Backend(url=BACKEND)},
    limit=[Limit(name="foo", key="header:Foo", match="bar", max_concurrent=2)],
)
proxy = Proxy(reactor, config)  # raises ConfigError where something is wrong

# The tree of resources. Whatever is below /app goes to the application behind, with its whole path.
root = Resource()
root.putChild(b"", Data(b"This page is not the proxy's.\n", "text/plain"))
root.putChild(b"app", proxy.resource)
site = Site(root, parsePOSTFormSubmission=False)  # else forms would be read here, for nothing

# The proxy is a service: it has to be started and stopped with the program.
application = Application("embed")
proxy.setServiceParent(application)
StreamServerEndpointService(serverFromString(reactor, LISTEN), site).setServiceParent(application)

if __name__ == "__main__":  # with twistd, all of this is done by twistd
    startLogging(sys.stdout)
    startApplication(application, save=False)
    reactor.run()
