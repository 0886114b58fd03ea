"""Load with hostile callers on a proxy that is reloaded and killed, and the books that must balance after it.

`bench/soak.py` runs it for minutes or hours; `tests/e2e/test_nemesis.py` for seconds, with more faults at a time. From
below: `record` and `answer` (one request), `caller` (one connection), `good_callers` and `hostile_callers` (what they
do), `load` (all of them at once), `upheavals` and `troubles` (what happens to the proxy, its issuer and its upstream),
`access_lines`, `books` and `totals` (what must always be true of it), `level` (what must be as before), `memory` (what
must not grow).
"""
