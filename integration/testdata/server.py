# An FTP server on pyftpdlib: server.py USER PASSWORD ADDRESS:PORT HOME UID [CERTIFICATE]
# The certificate's file has its key, too. Without it there is no TLS; on port 990 TLS is implicit.
import logging
import os
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import MultiprocessFTPServer

user, password, at, home, uid, *certificate = sys.argv[1:]
address, _, port = at.rpartition(":")
logging.basicConfig(level=logging.DEBUG)

authorizer = DummyAuthorizer()
authorizer.add_user(user, password, home, perm="elradfmwMT")

if not certificate:

    class Handler(FTPHandler):
        pass

else:
    from pyftpdlib.handlers import TLS_FTPHandler

    class Handler(TLS_FTPHandler):
        certfile = certificate[0]

        def handle(self):
            if port == "990":
                self.secure_connection(self.ssl_context)
            else:
                super().handle()

        def handle_ssl_established(self):
            if port == "990":
                super().handle()  # the greeting

    Handler.get_ssl_context()  # while it may read the key

Handler.authorizer = authorizer
Handler.unicode_errors = "surrogateescape"  # names are bytes, UTF-8 or not

# One process loses events when several sessions close and open connections at once.
server = MultiprocessFTPServer((address.strip("[]"), int(port)), Handler)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
server.serve_forever()
