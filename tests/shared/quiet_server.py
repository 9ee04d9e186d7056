"""An HTTP server for tests that read what the same process prints."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Prints no traceback where a client hangs up: the tests would find it in the output of the command."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints an error that is a mistake in a test's handler, as other servers do."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # ValueError: it wrote to a closed file
            super().handle_error(request, client_address)
