"""A real application server with TLS."""

from __future__ import annotations

import os

from tests.certificates import Authority, Identity
from tests.integration.harness import Backend, Running
from tests.integration.test_backends import BackendCase


class BackendTLSTests(BackendCase):
    """An application on gunicorn, whose certificate an authority of the test has signed."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()

    def saved(self, identity: Identity, name: str) -> tuple[str, str, str]:
        """The certificate, the key, and a file with both."""
        return identity.save(self._of("others"), name)

    async def secured(self, *options: str, names: tuple[str, ...] = ("localhost",)) -> Backend:
        """The application with TLS."""
        certificate, key, _ = self.saved(self.authority.identify(*names), "server")
        return await self.application(f"--certfile={certificate}", f"--keyfile={key}", *options)

    async def proxied(self, backend: Backend, *settings: str) -> Running:
        """A proxy before it."""
        lines = "\n".join(settings)
        return await self.proxy(f'[backend.app]\nurl = "https://localhost:{backend.port}"\n{lines}')

    async def test_verified(self) -> None:
        """A proxy that knows the authority forwards over TLS, one request after the other."""
        backend = await self.secured()
        ca = self.saved(self.authority.identity, "ca")[0]
        proxy = await self.proxied(backend, f'ca = "{ca}"')
        os.unlink(ca)  # files are read at the start, before rights are given up
        for number in range(3):
            answer = await self.ask(proxy, f"/work/{number}?seconds=0").answer
            self.assertEqual((answer.status, answer.body), (200, f"{number} is done\n".encode()))
        self.assertEqual(backend.names(), ["0", "1", "2"])
        self.assertEqual(self.said_of_backends(proxy), [])

    async def test_unknown_authority(self) -> None:
        """One that does not know it answers 502, and says in its log what to do; the application is asked nothing."""
        backend = await self.secured()
        proxy = await self.proxied(backend)
        for _ in range(2):
            answer = await self.ask(proxy, "/work/x?seconds=0").answer
            self.assertEqual(answer.status, 502)
            self.assertIn("error=tls_certificate_error", answer.headers["Proxy-Status"])
            self.assertNotIn(b"localhost", answer.body)
        self.assertEqual(
            self.said_of_backends(proxy),
            [
                f"backend.app: https://localhost:{backend.port} cannot be connected to: its certificate is signed by "
                "nobody who is trusted (mend: name the signer's certificate in backend.app.ca); "
                "requests are answered 502 or 504"
            ],
        )
        self.assertEqual(backend.work(), [])

    async def test_wrong_host(self) -> None:
        """So if the certificate is another host's."""
        backend = await self.secured(names=("other.example",))
        proxy = await self.proxied(backend, f'ca = "{self.saved(self.authority.identity, "ca")[0]}"')
        answer = await self.ask(proxy, "/work/x?seconds=0").answer
        self.assertEqual(answer.status, 502)
        self.assertIn("error=tls_certificate_error", answer.headers["Proxy-Status"])
        [line] = self.said_of_backends(proxy)
        self.assertIn(
            "its certificate is not for localhost (mend: write a host in backend.app.url that it", line
        )
        self.assertEqual(backend.work(), [])

    async def test_client_certificate(self) -> None:
        """An application that wants a certificate gets the one that the configuration names."""
        ca = self.saved(self.authority.identity, "ca")[0]
        ours = self.saved(self.authority.identify("proxy"), "ours")[2]
        backend = await self.secured(f"--ca-certs={ca}", "--cert-reqs=2")
        proxy = await self.proxied(backend, f'ca = "{ca}"', f'certificate = "{ours}"')
        self.assertEqual((await self.ask(proxy, "/work/with?seconds=0").answer).status, 200)
        proxy = await self.proxied(backend, f'ca = "{ca}"')
        self.assertEqual((await self.ask(proxy, "/work/without?seconds=0").answer).status, 502)
        self.assertEqual(backend.names(), ["with"])
