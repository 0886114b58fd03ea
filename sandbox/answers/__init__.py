"""What the upstream says: one file per family of OpenAI resources.

Pure functions from a request body to an `Answer`. `shape` holds the Answer itself, `wording` its text
and the checks of a body. `app` maps routes to these.
"""
