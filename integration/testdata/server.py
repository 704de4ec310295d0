# An FTP server on pyftpdlib: server.py ADDRESS HOME UID USER PASSWORD
import logging
import os
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import MultiprocessFTPServer

address, home, uid, user, password = sys.argv[1:]
logging.basicConfig(level=logging.DEBUG)

authorizer = DummyAuthorizer()
authorizer.add_user(user, password, home, perm="elradfmwMT")


class Handler(FTPHandler):
    pass


Handler.authorizer = authorizer
Handler.unicode_errors = "surrogateescape"  # names are bytes, UTF-8 or not

# One process loses events when several sessions close and open connections at once.
server = MultiprocessFTPServer((address, 21), Handler)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
server.serve_forever()
