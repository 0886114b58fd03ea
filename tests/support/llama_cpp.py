"""llama.cpp's own HTTP server with the tiny model, as a process: a real upstream, which demands an API key.

It answers two requests side by side and lets further ones wait. Run as a program it is the server, until its standard
input ends; the package xllamacpp holds llama.cpp, built.
"""

import subprocess
import sys
from pathlib import Path
from types import TracebackType

import httpx

from tests.support.proxy_process import ROOT

MODEL = "tiny"
API_KEY = "llama-s3cret"
SLOTS = 2
SLOT_CONTEXT = 2048
STOP_WITHIN_S = 10.0


class LlamaCpp:
    """A running server, and what it says of itself."""

    def __init__(self, folder: Path) -> None:
        with (folder / "llama.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.llama_cpp", str(folder / "tiny.gguf")],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, (folder / "llama.log").read_text()
        self._own = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False, timeout=10
        )

    def busy_slots(self) -> int:
        """How many answers it is generating at this moment."""
        return sum(slot["is_processing"] for slot in self._own.get("/slots").raise_for_status().json())

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._own.close()
        try:
            self._process.communicate(timeout=STOP_WITHIN_S)
        finally:
            self._process.kill()


def serve(file: Path) -> None:
    """Write the model, serve it on a free port, print the URL and wait for the end of standard input."""
    # Here, since the tests' own process does without 100 MB of them.
    import xllamacpp

    from tests.support.tiny_model import write_model

    write_model(file)
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {MODEL}
    params.api_keys = [API_KEY]
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * SLOT_CONTEXT
    params.ctx_shift = True  # endless answers
    params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cpuparams.n_threads = 1
    params.warmup = params.fit_params = params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
