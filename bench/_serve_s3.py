"""moto's S3, on loopback or at the address that is given; prints its port."""

import logging
import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
place = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
server = make_server(place, 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
