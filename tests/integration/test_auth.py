"""A service that says who may pass, in a process of its own, before real proxies."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from tests.certificates import Authority
from tests.integration.harness import Answer, Backend, IntegrationCase, Running, most_at_once, until

CONFIG = """
[backend.app]
url = "{app}"

[auth.main]
url = "{service}/auth"
send_headers = ["X-Say", "X-Name"]
copy_headers = ["X-User", "X-Priority"]
{settings}

[[rule]]
when = {{ path = "not:/public" }}
then = {{ auth = "main" }}

[[rule]]
then = {{ priority = "header:X-Priority" }}
"""

PER_USER = """
[[limit]]
name = "per-user"
key = "header:X-User"
max_concurrent = 1
"""


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class AuthCase(IntegrationCase):
    """
    A service, an application, and a proxy.

    @ivar service: the service's process.
    """

    service: Backend

    async def oracle(self, *options: str) -> Backend:
        """The service, or the application, in a process of its own."""
        return await self._backend(rb"listens on \S+:(\d+)\n", "tests.integration.oracle", *options)

    async def begin(self, settings: str = "", more: str = "", app: Backend | None = None) -> Running:
        """A proxy, and what it needs."""
        self.service = await self.oracle()
        return await self.proxied(self.service.url, settings, more, app or self.service)

    async def proxied(self, url: str, settings: str, more: str, app: Backend) -> Running:
        """A proxy."""
        return await self.proxy(CONFIG.format(app=app.url, service=url, settings=settings) + more)

    async def say(self, proxy: Running, what: str, **headers: str) -> Answer:
        """Send a request of which the service is told what to say."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(proxy, "/x", {"X-Say": what, **fields}).answer

    def said_of_service(self, proxy: Running) -> list[str]:
        """What a proxy's log says of the service."""
        line = rb"\[thrtwisted\.auth\.[^#\]]+#(?:info|warn|error|critical)\] (.*)"
        return [text.decode() for text in re.findall(line, proxy.child.output)]


def seen(answer: Answer, name: str) -> list[str]:
    """The values of a header that the application has got."""
    return re.findall(rf"^{name}: (.*)$", answer.body.decode(), re.MULTILINE | re.IGNORECASE)


class DecisionTests(AuthCase):
    """What the service says is done, and what the client says in its name is not."""

    async def test_answers(self) -> None:
        """
        Who may pass does so under the name that the service gives; who may not is told so by the service; and where
        there is no answer it is 502, at once or when its time is over. Where no rule asks the service it is not asked;
        nor does a client speak in its name there.
        """
        proxy = await self.begin("timeout = 0.5")
        answer = await self.say(proxy, "pass ann 10", X_User="root", X_Forwarded_Uri="/harmless")
        self.assertEqual((answer.status, seen(answer, "x-user")), (200, ["ann"]))
        answer = await self.say(proxy, "401", X_User="root")
        self.assertEqual((answer.status, answer.body), (401, b"it says 401"))
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="x"')
        self.assertTrue(answer.headers["Proxy-Status"].startswith("thrtwisted; details="))
        answer = await self.say(proxy, "302")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/login?next=%2F"))
        self.assertEqual(answer.headers.get_all("Set-Cookie"), ["a=1", "b=2"])
        for what in ("500", "garbage", "huge", "half", "slow 5"):
            answer = await self.say(proxy, what, X_User="root")
            self.assertEqual((answer.status, what), (502, what))
            self.assertNotIn(b"root", answer.body)
        answer = await self.say(proxy, "pass beth 50", X_User="root")
        self.assertEqual(seen(answer, "x-user"), ["beth"])
        failing, again = self.said_of_service(proxy)
        self.assertIn(
            f"auth.main: {self.service.url} gives no answer that could be used: it answers 500", failing
        )
        self.assertEqual(again, f"auth.main: {self.service.url} answers again")

    async def test_allowed(self) -> None:
        """Where that is configured requests pass while there is no answer, and as nobody."""
        proxy = await self.begin('timeout = 0.5\non_error = "allow"')
        for what in ("500", "garbage", "half"):
            answer = await self.say(proxy, what, X_User="root", X_Priority="1")
            self.assertEqual(
                (answer.status, seen(answer, "x-user"), seen(answer, "x-priority")), (200, [], [])
            )
        self.assertEqual((await self.say(proxy, "403", X_User="root")).status, 403)

    async def test_killed(self) -> None:
        """A service that is killed in the middle of an answer has said nothing; back again, it is asked again."""
        proxy = await self.begin(app=await self.oracle())
        asked = self.ask(proxy, "/x", {"X-Say": "half", "X-User": "root"})
        await self.service.child.said(b"half is there\n")
        await self.service.signal("KILL")
        self.assertEqual((await asked.answer).status, 502)
        self.assertEqual((await self.say(proxy, "pass ann 50", X_User="root")).status, 502)
        await self.oracle("--port", str(self.service.port))
        answer = await self.say(proxy, "pass ann 50", X_User="root")
        self.assertEqual((answer.status, seen(answer, "x-user")), (200, ["ann"]))
        failing, again = self.said_of_service(proxy)
        self.assertIn("its answer was cut off; requests are answered 502", failing)
        self.assertTrue(again.endswith("answers again"))

    async def test_stopped(self) -> None:
        """A proxy that is stopped with a question under way answers 503 at once, and stops."""
        proxy = await self.begin("timeout = 60")
        asked = self.ask(proxy, "/x", {"X-Say": "half"})
        await self.service.child.said(b"half is there\n")
        stopped = proxy.signal("TERM")
        self.assertEqual((await asked.answer).status, 503)
        await stopped
        self.assertEqual(self.said_of_service(proxy), [])


class CacheTests(AuthCase):
    """Answers hold for a while."""

    async def test_once(self) -> None:
        """Many equal requests at once, and later ones, are asked about once."""
        proxy = await self.begin("cache = 60")
        clients = [self.ask(proxy, "/x", {"X-Say": "slow 0.2", "X-Name": "once"}) for _ in range(20)]
        for client in clients:
            answer = await client.answer
            self.assertEqual((answer.status, seen(answer, "x-user")), (200, ["slow"]))
        answer = await self.say(proxy, "slow 0.2", X_Name="once", X_User="root")
        self.assertEqual(seen(answer, "x-user"), ["slow"])
        # A name that had begun twice would be an error there.
        self.assertEqual(self.service.names(), ["once"])


class LimitTests(AuthCase):
    """Questions wait for their turn; and what the service says counts in limits and priorities."""

    async def test_questions(self) -> None:
        """Over all processes so many questions are asked at once."""
        proxies = [await self.begin("max_concurrent = 2")]
        proxies.append(await self.proxied(self.service.url, "max_concurrent = 2", "", self.service))
        clients = [
            self.ask(proxies[number % 2], "/x", {"X-Say": "slow 0.1", "X-Name": str(number)})
            for number in range(8)
        ]
        for client in clients:
            self.assertEqual((await client.answer).status, 200)
        self.assertEqual(most_at_once(self.service.work()), 2)
        await self.idle()

    async def test_client_leaves(self) -> None:
        """The slot of a client who leaves is free when the service has finished, and not before."""
        proxy = await self.begin("max_concurrent = 1")
        first = self.ask(proxy, "/x", {"X-Say": "slow 0.4", "X-Name": "first"})
        await self.service.begun("first")
        second = self.ask(proxy, "/x", {"X-Say": "slow 0", "X-Name": "second"})
        await until(lambda: self.waiting() == 1)
        first.leave()
        self.assertEqual((await second.answer).status, 200)
        before, after = self.service.work()
        self.assertLessEqual(before.end, after.begin)
        await self.idle()

    async def test_per_user(self) -> None:
        """A limit for each user counts whom the service names, whoever the client says that it is."""
        app = await self.lean()
        proxy = await self.begin("", PER_USER, app)

        def hold(name: str, user: str, says: str) -> Any:
            return self.ask(proxy, f"/hold/{name}", {"X-Say": f"pass {user} 50", "X-User": says})

        clients = [hold("a1", "ann", "ann")]
        await app.begun("a1")
        clients.append(hold("a2", "ann", "beth"))
        await until(lambda: self.waiting() == 1)
        clients.append(hold("b1", "beth", "ann"))
        await app.begun("b1")
        self.assertEqual([work.name for work in app.work()], ["a1", "b1"])
        await self.let(app, "a1")
        await app.begun("a2")
        for name in ("a2", "b1"):
            await self.let(app, name)
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        await self.idle()

    async def test_priority(self) -> None:
        """The service says whose request goes first."""
        app = await self.lean()
        limit = '[[limit]]\nname = "all"\nmax_concurrent = 1\n'
        proxy = await self.begin("", limit, app)
        clients = []
        for waiting, (name, priority) in enumerate((("held", 50), ("last", 90), ("first", 10))):
            fields = {"X-Say": f"pass ann {priority}", "X-Priority": "1"}
            clients.append(self.ask(proxy, f"/hold/{name}", fields))
            await (
                app.begun(name) if not waiting else until(lambda waiting=waiting: self.waiting() == waiting)
            )
        for name in ("held", "first", "last"):
            await app.begun(name)
            await self.let(app, name)
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        self.assertEqual([work.name for work in app.work()], ["held", "first", "last"])


class TLSTests(AuthCase):
    """A service with TLS."""

    async def test_verified(self) -> None:
        """It is asked, over connections that are kept, if its certificate is to be trusted; and else not."""
        authority = Authority()
        directory = self._of("others")
        certificate = authority.identify("localhost").save(directory, "server")[2]
        ca = authority.identity.save(directory, "ca")[0]
        service = await self.oracle("--certificate", certificate)
        url = f"https://localhost:{service.port}"
        app = await self.oracle()
        trusting = await self.proxied(url, f'ca = "{ca}"', "", app)
        for number in range(5):
            answer = await self.say(trusting, "pass ann 50", X_Name=str(number))
            self.assertEqual((answer.status, seen(answer, "x-user")), (200, ["ann"]))
        self.assertLess(service.child.output.count(b" connection begun\n"), 5)
        doubting = await self.proxied(url, "", "", app)
        self.assertEqual((await self.say(doubting, "pass ann 50", X_Name="doubting")).status, 502)
        self.assertEqual(service.names(), list("01234"))
        [line] = self.said_of_service(doubting)
        self.assertIn("(mend: name the signer's certificate in auth.main.ca)", line)


class ExampleTests(AuthCase):
    """Tests for examples/auth.toml and examples/auth_service.py."""

    async def test_example(self) -> None:
        """The service of the example asks for a password, keeps others out of /admin, and says who it is."""
        path = str(EXAMPLES / "auth_service.py")
        run = f"import os, runpy; os.environ['PORT'] = '0'; runpy.run_path({path!r}, run_name='__main__')"
        service = Backend(*self.other("-c", run))
        service.port = await self._listening(service.child, rb"listens on \S+:(\d+)\n")
        app = await self.oracle()
        config = (EXAMPLES / "auth.toml").read_text()
        config = re.sub("^listen = .*", "", config, flags=re.MULTILINE)
        config = config.replace("127.0.0.1:7000", f"127.0.0.1:{service.port}")
        proxy = await self.proxy(config.replace("127.0.0.1:9999", f"127.0.0.1:{app.port}"))
        for who, path, status in (
            ("", "/", 401),
            ("ann:apple", "/", 401),
            ("bob:apple", "/", 200),
            ("bob:apple", "/admin", 403),
            ("ann:orange", "/admin", 200),
            ("bob:apple", "/", 200),
        ):
            credentials = base64.b64encode(who.encode()).decode()
            fields = {"Authorization": f"Basic {credentials}"} if who else {}
            answer = await self.ask(proxy, path, {"X-User": "root", **fields}).answer
            self.assertEqual(answer.status, status, (who, path))
            if status == 200:
                self.assertEqual(seen(answer, "x-user"), [who.partition(":")[0]])
            if status == 401:
                self.assertTrue(answer.headers["WWW-Authenticate"].startswith("Basic "))
