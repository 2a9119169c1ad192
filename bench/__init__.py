"""
What a request costs: this proxy beside others, in one run on one machine. C{python -m bench --help} says how.

It is no test, and has no threshold: what it measures depends on the machine.
"""
