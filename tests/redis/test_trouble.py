"""Tests for L{thrtwisted.redis.trouble}: one table, from what was said to one line."""

from __future__ import annotations

import errno
import re
from itertools import permutations
from pathlib import Path

import txredisapi
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import TimeoutError
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.redis.trouble import (
    Lost,
    NobodyAnswers,
    Replaced,
    TooSlow,
    TooSlowHere,
    UnknownService,
    trouble_of,
)
from thrtwisted.redis.url import RedisAddress
from thrtwisted.tls import LONGEST_TEXT, UntrustedCertificate, WrongName

SOON, LATER = True, False

#: What Valkey 9.1, Redis 7.0, and by their sources older ones say; a part of the line; whether it may pass by itself.
SAID = [
    ("WRONGPASS invalid username-password pair or user is disabled.", "user or the password is wrong", LATER),
    ("ERR invalid password", "user or the password is wrong", LATER),
    ("NOAUTH Authentication required.", "wants a password", LATER),
    (
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
        "configuration is correct?",
        "it has no password",
        LATER,
    ),
    ("ERR Client sent AUTH, but no password is set", "it has no password", LATER),
    ("ERR wrong number of arguments for 'auth' command", "older than Redis 6", LATER),
    ("DENIED Redis is running in protected mode because protected mode is enabled", "protected mode", LATER),
    (
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "may not run the command EVALSHA",
        LATER,
    ),
    ("NOPERM User u has no permissions to run the 'subscribe' command", "the command SUBSCRIBE", LATER),
    (
        "NOPERM this user has no permissions to run the 'cluster|slots' command",
        "the command CLUSTER|SLOTS",
        LATER,
    ),
    (
        "ERR ACL failure in script: User u has no permissions to run the 'time' command script: on @user_script:1.",
        "may not run the command TIME",
        LATER,
    ),
    (
        "ERR The user executing the script can't run this command or subcommand script: 51c1, on @user_script:1.",
        "may not run a command that the gate needs",
        LATER,
    ),
    ("NOPERM No permissions to access a key", "may not use the keys", LATER),
    (
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "may not use the keys",
        LATER,
    ),
    (
        "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
        "may not use the keys",
        LATER,
    ),
    ("NOPERM No permissions to access a channel", "may not use the channels", LATER),
    (
        "NOPERM this user has no permissions to access one of the channels used as arguments",
        "may not use the channels",
        LATER,
    ),
    (
        "ERR The user executing the script can't publish to the channel mentioned in the command script: 51c1",
        "may not use the channels",
        LATER,
    ),
    ("ERR DB index is out of range", "no database of this number", LATER),
    ("ERR invalid DB index", "no database of this number", LATER),
    ("ERR SELECT is not allowed in cluster mode", "no database of this number", LATER),
    (
        "ERR Error running script (call to f_1): @user_script:9: @user_script: 9: Write commands not allowed after non "
        "deterministic commands. Call redis.replicate_commands() at the start of your script in order to switch to "
        "single commands replication mode.",
        "too old",
        LATER,
    ),
    ("ERR unknown command 'EVALSHA', with args", "does not know the command EVALSHA", LATER),
    ("ERR unknown command `EVALSHA`, with args", "does not know the command EVALSHA", LATER),
    ("ERR unknown command 'SENTINEL', with args", "is no Sentinel", LATER),
    ("ERR This instance has cluster support disabled", "no node of a cluster", LATER),
    ("ERR unknown command 'CLUSTER', with args", "no node of a cluster", LATER),
    (
        "READONLY You can't write against a read only replica. script: on @user_script:1.",
        "read-only replica",
        SOON,
    ),
    (
        "OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:1.",
        "out of memory",
        LATER,
    ),
    (
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "save to disk",
        LATER,
    ),
    ("NOREPLICAS Not enough good replicas to write. script: on @user_script:1.", "fewer replicas", SOON),
    ("ERR max number of clients reached", "as many connections as it may", LATER),
    ("LOADING Redis is loading the dataset in memory", "loading its data", SOON),
    (
        "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "busy with a script",
        SOON,
    ),
    (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "whose master is away",
        SOON,
    ),
    ("CLUSTERDOWN Hash slot not served", "no node of the cluster has the slot", SOON),
    ("CLUSTERDOWN The cluster is down", "its cluster is down", SOON),
    ("ASK 6302 127.0.0.1:7001", "on its way to another node", SOON),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "on its way to another node", SOON),
    ("MOVED 6302 127.0.0.1:7001", "disagree", SOON),
    (
        "WRONGTYPE Operation against a key holding the wrong kind of value script: on @user_script:3.",
        "another program",
        LATER,
    ),
    ("", "it says nothing but no;", LATER),
    (" ", "it says nothing but no;", LATER),
    ("ERR something\x1b[31m new", "it says ERR something?[31m new;", LATER),
]

OTHER = [
    (Replaced(), "the sentinels disagree", SOON),
    (Lost(), "the connection was lost", SOON),
    (TooSlow(), "does not answer in time", SOON),
    (TooSlowHere(), "does not answer in time to what is written", SOON),
    (UnknownService("ma\nin"), "it knows no service ma in", LATER),
    (WrongName("h"), "its certificate is not for h", LATER),
    (UntrustedCertificate(9), "not valid yet", LATER),
    (UntrustedCertificate(10), "expired", LATER),
    *((UntrustedCertificate(code), "nobody who is trusted", LATER) for code in (2, 7, 18, 19, 20, 21)),
    (UntrustedCertificate(23), "not to be trusted (X.509 error 23)", LATER),
    (SSL.Error([("SSL routines", "", "tlsv13 alert certificate required")]), "wants a certificate", LATER),
    (SSL.Error([("SSL routines", "", "sslv3 alert handshake failure")]), "wants a certificate", LATER),
    (SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]), "not accept our certificate", LATER),
    (
        SSL.Error([("SSL routines", "", "sslv3 alert certificate expired")]),
        "not accept our certificate",
        LATER,
    ),
    (SSL.Error([("SSL routines", "", "tlsv1 alert protocol version")]), "older than 1.2", LATER),
    (SSL.Error([("SSL routines", "", "wrong version number")]), "does not speak TLS", LATER),
    (SSL.Error([("SSL routines", "", "record layer failure")]), "does not speak TLS", LATER),
    (SSL.Error([("SSL routines", "", "bad luck")]), "TLS fails (bad luck)", LATER),
    (SSL.Error(), "TLS fails (Error)", LATER),
    (SSL.SysCallError(-1, "Unexpected EOF"), "TLS fails (Unexpected EOF)", LATER),
    (SSL.SysCallError(104, "ECONNRESET"), "TLS fails (ECONNRESET)", LATER),
    (SSL.SysCallError(104), "TLS fails (104)", LATER),
    (SSL.ZeroReturnError(), "TLS fails (ZeroReturnError)", LATER),
    (error.ConnectionRefusedError(), "nobody listens there", SOON),
    (error.DNSLookupError("no results"), "no host of this name", SOON),
    (error.NoRouteError(), "no way to its network", SOON),
    (error.TimeoutError(), "does not answer;", SOON),
    (TimeoutError(2.0, "Deferred"), "does not answer;", SOON),
    (error.ConnectionDone(), "closes the connection before it answers", SOON),
    (error.ConnectionLost(), "closes the connection before it answers", SOON),
    (error.ConnectError(errno.ENOENT, "No such file"), "no such socket", SOON),
    (error.ConnectError(errno.EACCES, "Permission denied"), "may not open the socket", LATER),
    (error.ConnectError(string="no way"), "it cannot be reached (", SOON),
    (ValueError("truncated"), "its answer cannot be read (truncated)", LATER),
    (ValueError(), "its answer cannot be read (ValueError)", LATER),
]


class TroubleTests(SynchronousTestCase):
    """Tests for L{trouble_of}."""

    def check(self, problem: Exception, text: str, passes: bool) -> None:
        trouble = trouble_of(problem)
        self.assertIn(text, trouble.line)
        self.assertEqual(trouble.passes, passes, problem)
        self.assertRegex(trouble.line, "^[^;]+; [a-z:]", "what is wrong, and a mend")
        self.assertTrue(trouble.line.isprintable())
        self.assertNotIn("{", trouble.line)

    def test_said(self) -> None:
        """What a server says is put into words, with the mend."""
        for said, text, passes in SAID:
            self.check(txredisapi.ResponseError(said), text, passes)

    def test_other(self) -> None:
        """So is what goes wrong before a server can say anything."""
        for problem, text, passes in OTHER:
            self.check(problem, text, passes)

    def test_long(self) -> None:
        """A text that nobody knows is cut."""
        self.assertLess(
            len(trouble_of(txredisapi.ResponseError("x" * 9999)).line),
            LONGEST_TEXT + 100,
        )

    def test_nobody(self) -> None:
        """Of several servers each is named, always in the same order; the mend is for what does not pass by itself."""
        here, there = RedisAddress("tcp", host="a"), RedisAddress("tcp", host="b", password="s3cret")
        refused, wrong = error.ConnectionRefusedError(), txredisapi.ResponseError("WRONGPASS")
        elsewhere, unknown = RedisAddress("tcp", host="c"), UnknownService("main")
        for problems in permutations([(here, refused), (there, wrong), (elsewhere, unknown)]):
            trouble = trouble_of(NobodyAnswers("nobody answers", list(problems)))
            self.assertEqual(
                trouble.line,
                "nobody answers (a:6379: nobody listens there, b:6379: the user or the password is wrong, "
                "c:6379: it knows no service main); correct redis.url, or the user on the server",
            )
            self.assertFalse(trouble.passes)
        trouble = trouble_of(NobodyAnswers("nobody answers", [(here, refused)]))
        self.assertEqual(trouble.mend, "start the server, or correct redis.url")
        self.assertTrue(trouble.passes)

    def test_documented(self) -> None:
        """The page on Redis explains each, and nothing that is not said."""
        page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text("utf-8")
        _, _, table = page.partition("| what the line says | what it means, and the mend |\n| --- | --- |\n")
        rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line]
        said = [trouble_of(txredisapi.ResponseError(text)) for text, _, _ in SAID]
        said += [trouble_of(problem) for problem, _, _ in OTHER]
        others = [
            NobodyAnswers(f"no {who}", [(RedisAddress("tcp", host="a"), Lost())])
            for who in (
                "sentinel says which server is the master",
                "node of the cluster says who has the namespace",
            )
        ]
        said += map(trouble_of, others)
        unused = set(rows)
        for trouble in said:
            what = trouble.what.partition(" (")[0]
            matching = {row for row in rows if re.fullmatch(re.escape(row).replace("…", ".*"), what)}
            self.assertEqual(len(matching), 1, what)
            unused -= matching
        self.assertEqual(unused, set())
