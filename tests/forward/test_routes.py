"""Tests of which URL is next."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.forward.routes import Routes

DOWN = 10.0


def played(count, steps):
    """
    The URLs that were chosen in turn.

    @param steps: C{t}: take one, but for the numbers that follow; C{-N}: the exchange that was the last to take N
        leaves; C{.N}: it has tried; C{xN}: N refuses; C{oN}: N was connected to; C{iN}: N is ill; C{wN}: N is well;
        C{+S}: S seconds pass.
    """
    routes, now, chosen = Routes(count, DOWN), 0.0, []
    taken = [[] for _ in range(count)]
    for step in steps.split():
        what, rest = step[0], step[1:]
        if what == "t":
            route = routes.take(now, [int(each) for each in rest])
            chosen.append("-" if route is None else str(route.number))
            if route is not None:
                taken[route.number].append(route)
        elif what == "-":
            routes.leave(taken[int(rest)].pop())
        elif what == ".":
            routes.tried(taken[int(rest)][-1])
        elif what == "x":
            routes.refused(int(rest), now)
        elif what == "o":
            routes.connected(int(rest))
        elif what in "iw":
            routes.judged(int(rest), what == "i")
        else:
            now += float(rest)
    return "".join(chosen)


class RoutesTests(SynchronousTestCase):
    """Histories of URLs, each with what was chosen."""

    def test_table(self):
        """Each history, in words, with the choices that follow from it."""
        for what, count, steps, expected in [
            ("one has everything", 1, "t t t", "000"),
            ("in turn while all have equally many", 3, "t t t t t t", "012012"),
            ("in turn when each is alone", 3, "t -0 t -1 t -2 t -0", "0120"),
            ("the fewest", 3, "t t t -1 t t", "01210"),
            ("the longest ago of the fewest", 3, "t t t t -2 -1 t t", "012012"),
            ("another at once", 2, "t x0 t0 t", "011"),
            ("out for a time", 2, "t x0 -0 +9.9 t t", "011"),
            ("none is left", 2, "t x0 t0 x1 t01", "01-"),
            ("all are out, and tried nevertheless", 2, "t x0 -0 t0 x1 -1 t", "010"),
            ("one exchange tries again", 2, "t x0 -0 +10 t t t t", "01011"),
            ("and if it succeeds, all may", 2, "t x0 -0 +10 t t o0 -0 t t", "01001"),
            ("and if not, its time begins anew", 2, "t x0 -0 +10 t t x0 -0 +9 t +1 t", "01010"),
            ("and if it goes away before, the next may", 2, "t x0 -0 +10 t t -0 t", "0100"),
            ("and when it knows no more, the next may", 2, "t x0 -0 +10 t t .0 t t t", "010101"),
            ("the ill have none", 2, "i0 t t t", "111"),
            ("however long", 2, "i0 +1000 t t", "11"),
            ("until they are well", 2, "i0 t w0 t t", "101"),
            ("all are ill", 2, "i0 i1 t t", "01"),
            ("the ill only when others refuse", 2, "i0 t x1 t1", "10"),
            ("one alone is never out", 1, "i0 t x0 t", "00"),
        ]:
            self.assertEqual(played(count, steps), expected, what)

    def test_trial(self):
        """A route says whether its URL could be connected to when that was tried last."""
        routes = Routes(1, DOWN)
        trials = [routes.take(0.0).trial]
        routes.refused(0, 0.0)
        trials += [routes.take(0.0).trial, routes.take(DOWN).trial]
        routes.connected(0)
        self.assertEqual([*trials, routes.take(DOWN).trial], [False, True, True, False])

    def test_news(self):
        """Changes are told once."""
        routes = Routes(2, DOWN)
        self.assertFalse(routes.connected(0))
        self.assertEqual([routes.refused(0, 0.0), routes.refused(0, 1.0)], [True, False])
        self.assertEqual(routes.out, [0])
        self.assertEqual([routes.connected(0), routes.connected(0)], [True, False])
        routes.judged(1, ill=True)
        self.assertEqual(repr(routes), "<Routes [0, 0], out: [1]>")

    @settings(max_examples=200, deadline=None)
    @given(
        st.integers(1, 4),
        st.lists(
            st.tuples(st.sampled_from(["take", "leave", "refused", "connected", "up"]), st.integers(0, 3))
        ),
    )
    def test_property(self, count, history):
        """
        Whatever happens: somebody is chosen as long as there is one untried; never one who is out while another is not;
        of those that are not out, one of those with the fewest; and of several that are out no more than one exchange
        at a time finds out whether it has come back.
        """
        routes, now, has = Routes(count, DOWN), 0.0, [[] for _ in range(count)]
        down = {}
        trying = {}
        for what, number in history:
            number %= count
            if what == "take":
                tried = {each for each in range(count) if each < number}
                route = routes.take(now, tried)
                chosen = route.number
                left = set(range(count)) - tried
                self.assertIn(chosen, left)
                usable = {each for each in left if now >= down.get(each, 0.0) and each not in trying}
                self.assertIn(chosen, usable or left)
                self.assertEqual(len(has[chosen]), min(len(has[each]) for each in usable or left))
                has[chosen].append(route)
                if chosen in down and usable:
                    trying[chosen] = route
            elif what == "leave" and has[number]:
                route = has[number].pop(len(has[number]) // 2)
                routes.leave(route)
                if trying.get(number) is route:
                    del trying[number]
            elif what == "refused":
                self.assertEqual(routes.refused(number, now), number not in down)
                down[number] = now + DOWN
                trying.pop(number, None)
            elif what == "connected":
                self.assertEqual(routes.connected(number), number in down)
                down.pop(number, None)
                trying.pop(number, None)
            else:
                now += 4.0
            self.assertEqual([routes.exchanges(each) for each in range(count)], list(map(len, has)))
            self.assertEqual(routes.out, sorted(down))
