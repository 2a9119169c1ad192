"""Workers that cannot connect to the application: no client notices, as long as another worker can."""

from __future__ import annotations

import time
from typing import ClassVar

from tests.integration.application import digest, pieces
from tests.integration.harness import Backend, Running, until, unused_port
from tests.integration.relayed import RelayCase

#: Of a request: more than goes to a worker in one piece, or in one window.
SIZE = 1_000_000

BODY = b"".join(pieces(SIZE))

STEPS_BACK = b"backend.app cannot be connected to from here"
COMES_BACK = b"backend.app can be connected to again"


class ReachTests(RelayCase):
    """Two workers, each with an application of its own; the one's is not there at first."""

    # None is to be taken for dead, however busy the machine is.
    settings: ClassVar = {"lease": 5.0}
    down_time = 1.0
    config = f"""
[backend.app]
url = "{{url}}"
down_time = {down_time}
"""

    def setUp(self) -> None:
        super().setUp()
        self.port = unused_port()
        self.nobody = f"http://127.0.0.1:{self.port}"

    async def two(self) -> tuple[Backend, Running, Running, Running]:
        """The good application, a front, the broken worker, which is the less busy one, and the good one."""
        good = await self.lean()
        front, well = await self.pair(good)
        self.held = self.ask(front, "/hold/held")
        await good.begun("held")
        return good, front, await self.worker(self.nobody), well

    async def late(self) -> Backend:
        """The other application, which is there from now on."""
        return await self._backend(
            rb"Serving on \S+:(\d+)\n",
            *("waitress", f"--listen=127.0.0.1:{self.port}", "--threads=4"),
            "tests.integration.application:application",
        )

    async def test_steps_back(self) -> None:
        """All are answered by the other, whatever their method, each once; the broken one says so, and steps back."""
        good, front, broken, _ = await self.two()
        posts = [
            self.ask(front, f"/digest/post-{number}", method="POST", body=b"%d" % number + BODY)
            for number in range(4)
        ]
        others = [self.ask(front, f"/work/get-{number}?seconds=0") for number in range(4)]
        self.assertEqual(await self.done(*posts, *others), [200] * 8)
        for number, client in enumerate(posts):
            answer = await client.answer
            self.assertEqual(answer.body.decode(), digest([b"%d" % number, BODY]))
        # Again and again it tries whether it can, and nobody notices.
        began, asked = time.monotonic(), 0
        while time.monotonic() - began < 2.5 * self.down_time:
            client = self.ask(front, f"/digest/more-{asked}", method="POST", body=b"x")
            self.assertEqual(await self.done(client), [200])
            asked += 1
        self.assertEqual(len(good.work()), 1 + 8 + asked)
        self.assertEqual(broken.child.output.count(STEPS_BACK), 1)
        self.assertEqual(broken.child.output.count(COMES_BACK), 0)
        await self.let(good, "held")
        self.assertEqual(await self.done(self.held), [200])
        await self.idle()

    async def test_comes_back(self) -> None:
        """When C{down_time} is over it tries again; when it can, it says so, and has its share again."""
        good, front, broken, _ = await self.two()
        asked = time.monotonic()
        self.assertEqual(await self.done(self.ask(front, "/work/first?seconds=0", method="POST")), [200])
        await broken.child.said(STEPS_BACK)
        late = await self.late()
        number = 0
        while not late.work():
            client = self.ask(front, f"/work/{number}?seconds=0", method="POST")
            self.assertEqual(await self.done(client), [200])
            number += 1
        # It was asked nothing before; and then at once, for it is the less busy one.
        self.assertGreater(late.work()[0].begin - asked, self.down_time)
        self.assertEqual(len(late.work()), 1)
        await broken.child.said(COMES_BACK)
        self.assertEqual(await self.done(self.ask(front, "/work/share?seconds=0")), [200])
        self.assertIn("share", late.names())
        await self.let(good, "held")
        self.assertEqual(await self.done(self.held), [200])
        await self.idle()

    async def test_nobody(self) -> None:
        """Where no other worker is, or none that can, the answer is that of the direct way, and nobody steps back."""
        front, _ = await self.pair(self.nobody)
        for _ in range(2):
            answer = await self.ask(front, "/digest/it", method="POST", body=BODY).answer
            self.assertEqual((answer.status, answer.complete), (502, True))
            self.assertIn("error=connection_refused", answer.headers["Proxy-Status"])
            await self.worker(self.nobody)
        late = await self.late()
        self.assertEqual(await self.done(self.ask(front, "/work/late?seconds=0")), [200])
        self.assertEqual(late.names(), ["late"])
        await self.idle()

    async def test_other_is_stopped(self) -> None:
        """While it steps back the other one is stopped: who comes then waits until it tries again."""
        good, front, broken, well = await self.two()
        self.assertEqual(await self.done(self.ask(front, "/work/first?seconds=0")), [200])
        await broken.child.said(STEPS_BACK)
        await self.let(good, "held")
        self.assertEqual(await self.done(self.held), [200])
        stopped = well.signal("TERM")
        await self.late()
        await until(lambda: stopped.called)
        self.assertEqual(await self.done(self.ask(front, "/work/last?seconds=0", method="POST")), [200])
        await self.idle()
