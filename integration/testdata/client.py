# Works through a job with ftplib:
#   client.py HOST PORT USER PASSWORD VERB DIRECTORY [explicit|implicit P|C MAX CA] <STEPS
import ftplib
import os
import socket
import ssl
import sys
from urllib.parse import unquote

host, port, user, password, verb, directory, *tls = sys.argv[1:]


class Client(ftplib.FTP_TLS if tls else ftplib.FTP):
    """ftplib picks the verb by the family alone; here it can be told. And it knows no implicit TLS."""

    def connect(self, host, port):
        if not tls or tls[0] == "explicit":
            return super().connect(host, port)
        self.host, self.port = host, port
        plain = socket.create_connection((host, port), self.timeout)
        self.af = plain.family
        self.sock = self.context.wrap_socket(plain, server_hostname=host)
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        return self.welcome

    def makepasv(self):
        if verb == "EPSV":
            return ftplib.parse229(self.sendcmd("EPSV"), self.sock.getpeername())
        return super().makepasv()

    def sendport(self, host, port):
        if verb == "EPRT":
            return self.sendeprt(host, port)
        return super().sendport(host, port)


def interrupted(remote):
    """Begins a download and returns its data connection in the middle."""
    conn = ftp.transfercmd("RETR " + remote)
    got = 0
    while got < 100000:
        got += len(conn.recv(10000))
    return conn


def last_reply():
    """Reads the reply that ends a transfer, good or bad."""
    try:
        ftp.voidresp()
    except ftplib.Error as error:
        print(error, file=sys.stderr)


def step(op, remote, local, to):
    if op == "get":
        with open(local, "wb") as file:
            ftp.retrbinary("RETR " + remote, file.write)
    elif op == "reget":
        with open(local, "ab") as file:
            ftp.retrbinary("RETR " + remote, file.write, rest=file.tell())
    elif op == "put":
        with open(local, "rb") as file:
            ftp.storbinary("STOR " + remote, file)
    elif op == "reput":
        with open(local, "rb") as file:
            file.seek(ftp.size(remote))
            ftp.storbinary("STOR " + remote, file, rest=file.tell())
    elif op == "append":
        with open(local, "rb") as file:
            ftp.storbinary("APPE " + remote, file)
    elif op == "rename":
        ftp.rename(remote, to)
    elif op == "delete":
        ftp.delete(remote)
    elif op == "mkdir":
        ftp.mkd(remote)
    elif op == "rmdir":
        ftp.rmd(remote)
    elif op == "list":
        with open(local, "w") as file:
            ftp.dir(lambda line: print(line, file=file))
    elif op == "nlst":
        with open(local, "w") as file:
            print(*ftp.nlst(), sep="\n", file=file)
    elif op == "mlsd":
        with open(local, "w") as file:
            for name, facts in ftp.mlsd():
                print(name, file=file)
    elif op == "hangup":
        interrupted(remote).close()
        last_reply()
    elif op == "abort":
        conn = interrupted(remote)
        ftp.abort()
        conn.close()
        ftp.putcmd("NOOP")
        while not last().startswith("200"):
            pass
    else:
        sys.exit("ftplib cannot " + op)


def last():
    try:
        return ftp.getresp()
    except ftplib.Error as error:
        print(error, file=sys.stderr)
        return str(error)


options = {"encoding": "latin-1", "timeout": 60}  # names are bytes
if tls:
    options["context"] = ssl.create_default_context(cafile=tls[3])
    if tls[2] == "1.2":
        options["context"].maximum_version = ssl.TLSVersion.TLSv1_2
ftp = Client(**options)
ftp.set_debuglevel(1)
sys.stdout = sys.stderr  # where its debugging output goes
ftp.set_pasv(verb in ("PASV", "EPSV"))
ftp.connect(host, int(port))
ftp.login(user, password)
if tls and tls[1] == "P":
    ftp.prot_p()
elif tls:
    ftp.voidcmd("PBSZ 0")
    ftp.prot_c()
ftp.cwd(directory)
ftp.voidcmd("TYPE I")
for line in sys.stdin:
    op, *names = line.rstrip("\n").split(" ")
    step(op, *(unquote(name, "latin-1") for name in names))
ftp.quit()
