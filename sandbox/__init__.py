"""A token issuer and an OpenAI-shaped upstream on loopback, to try the proxy with and to test it against.

One process, `python -m sandbox`, plays both parts; faults are switched on over HTTP (`faults.py` lists them).
A request goes `server` → `app` → `exchange` → `issuer` or `upstream` (→ `answers`), and its answer goes back
through `faults` and `exchange`, which writes it and notes in the `journal` what became of it.
`process` starts it as a child. Nothing here is safe outside loopback: ids, secrets and the key are public.
"""
