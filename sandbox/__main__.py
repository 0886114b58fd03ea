"""`python -m sandbox`: patches the standard library for gevent before anything else, and runs."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from sandbox.command import main  # noqa: E402

sys.exit(main())
