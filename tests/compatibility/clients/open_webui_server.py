"""Open WebUI's server in its slim form. Called as `python open_webui_server.py PORT RERANK_URL KEY`; a signal ends it.

Before it serves it asks its external reranker once and prints the scores: otherwise only a knowledge base asks it,
which needs a vector database. Everything else is set by environment variables, as in a container.
"""

import sys

import uvicorn
from open_webui.main import app
from open_webui.retrieval.models.external import ExternalReranker

PORT, RERANK_URL, KEY = sys.argv[1:]
QUERY = "red house"
scores = ExternalReranker(KEY, RERANK_URL, "sandbox-rerank").predict([(QUERY, "green tree"), (QUERY, "red house")])
print(f"scores: {scores}", flush=True)
uvicorn.run(app, host="127.0.0.1", port=int(PORT))
