"""Private database servers for tests and benchmarks: each in its own temporary directory, gone afterwards.

A server listens on a Unix socket in its directory and nowhere else, so that nothing collides, however many
suites run at once; Redis, whose clients want a port, has one of 127.0.0.1 as well. PostgreSQL and MariaDB
refuse to run as root: started by root, they run as an unprivileged user.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0
_DEBIAN_POSTGRESQL = "/usr/lib/postgresql"


class ServiceUnavailable(Exception):
    """A server a test needs is not installed, or does not start; the message says what to do."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, and that no other test is given.

    None of those the system gives to outgoing connections either: a server that is stopped and started again
    must find its port free.
    """
    while True:
        port = secrets.choice(range(10_000, _lowest_ephemeral_port()))
        if not _reserved(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


_reservations: list[int] = []


def _reserved(port: int) -> bool:
    """Reserve a port among all test processes of this user for as long as this one lives."""
    directory = Path(tempfile.gettempdir()) / f"otel-audit-test-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    file = os.open(directory / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _reservations.append(file)
    return True


def _lowest_ephemeral_port() -> int:
    """Read where the ports of outgoing connections begin; Linux says so, elsewhere they begin higher."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        lowest = 32_768
    return lowest if lowest > 11_000 else 65_536


def wait_until(ready: Callable[[], object], timeout: float, what: str) -> None:
    """Poll ``ready`` until it is true; raise :class:`TimeoutError` naming ``what`` after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {timeout:g} s")
        time.sleep(0.02)


class Server:
    """One running database server.

    Attributes:
        directory: where it keeps everything, its log ``server.log`` and its socket included.
        host: the directory of the socket (PostgreSQL), or the socket itself (MariaDB): what Django's
            ``HOST`` takes.
        user: a superuser who needs no password.
    """

    vendor: str
    user: str

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process
        self.host = str(directory)

    def django(self, name: str) -> dict[str, Any]:
        """Return the ``DATABASES`` entry of database ``name``."""
        raise NotImplementedError

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        """Run ``statements`` in autocommit, return the rows of the last one."""
        raise NotImplementedError

    def create_database(self, name: str = "") -> str:
        """Create database ``name`` (default: one nobody else has) and return its name."""
        name = name or f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop database ``name``, whoever is still connected to it."""
        raise NotImplementedError

    @contextmanager
    def database(self) -> Iterator[str]:
        """Return a new, empty database for the length of a ``with`` block."""
        name = self.create_database()
        try:
            yield name
        finally:
            self.drop_database(name)


class PostgreSQLServer(Server):
    vendor = "postgresql"
    user = "postgres"
    port = 5432

    def django(self, name: str) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": self.user,
            "HOST": self.host,
            "PORT": str(self.port),
        }

    def dsn(self, name: str) -> str:
        """Return the libpq connection string of database ``name``."""
        return f"host={self.host} port={self.port} user={self.user} dbname={name}"

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        import psycopg

        rows: list[tuple[Any, ...]] = []
        with psycopg.connect(self.dsn(database or "postgres"), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class MariaDBServer(Server):
    vendor = "mysql"
    user = "root"

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__(directory, process)
        self.host = str(directory / "mariadb.sock")

    def django(self, name: str) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "USER": self.user,
            "HOST": self.host,
            "OPTIONS": {"charset": "utf8mb4"},
            "TEST": {"CHARSET": "utf8mb4"},
        }

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        import MySQLdb

        rows: list[tuple[Any, ...]] = []
        connection = MySQLdb.connect(
            unix_socket=self.host, user=self.user, database=database, autocommit=True, charset="utf8mb4"
        )
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                    rows = list(cursor.fetchall())
        finally:
            connection.close()
        return rows

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")


class RedisServer:
    """One running Redis.

    Attributes:
        directory: where it keeps everything, its log ``server.log`` and its socket included.
        url: ``redis://127.0.0.1:<port>/0``, for clients that want a port.
        socket: the path of its Unix socket.
    """

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int) -> None:
        self.directory = directory
        self.process = process
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.socket = str(directory / "redis.sock")

    def client(self) -> Any:
        """Return a client, to be closed by who asked for it."""
        import redis

        return redis.Redis.from_url(self.url)


@contextmanager
def redis() -> Iterator[RedisServer]:
    """Run a Redis for the length of a ``with`` block; it writes nothing to disk."""
    binary = _binary("redis-server", package="redis-server")
    with directory_for("redis", None) as directory:
        port = free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(directory), "--unixsocket", str(directory / "redis.sock")]
        with serve(None, directory, command, stop=signal.SIGTERM) as process:
            server = RedisServer(directory, process, port)
            wait_for("redis", directory, process, lambda: _ping(server))
            yield server


def _ping(server: RedisServer) -> None:
    with server.client() as client:
        client.ping()


@contextmanager
def postgresql(*options: str) -> Iterator[PostgreSQLServer]:
    """Run a PostgreSQL server for the length of a ``with`` block.

    Args:
        options: more settings, as ``name=value``. By default nothing is flushed to disk.
    """
    initdb, postgres = _postgresql_binaries()
    owner = _unprivileged("postgres")
    with directory_for("pg", owner) as directory:
        data = directory / "data"
        _run(
            owner,
            directory,
            [
                initdb,
                "-D",
                str(data),
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ],
        )
        command = [postgres, "-D", str(data), "-k", str(directory)]
        settings = ("listen_addresses=", "fsync=off", "full_page_writes=off", "shared_buffers=64MB")
        for setting in (*settings, "max_prepared_transactions=10", *options):
            command += ["-c", setting]
        with serve(owner, directory, command, stop=signal.SIGINT) as process:
            server = PostgreSQLServer(directory, process)
            wait_for(server.vendor, directory, process, lambda: server.execute("SELECT 1"))
            yield server


@contextmanager
def mariadb(*options: str) -> Iterator[MariaDBServer]:
    """Run a MariaDB server for the length of a ``with`` block.

    Args:
        options: more options of ``mariadbd``, with their dashes. By default nothing is flushed to disk.
    """
    install = _binary("mariadb-install-db", package="mariadb-server")
    mariadbd = _binary("mariadbd", package="mariadb-server")
    owner = _unprivileged("mysql")
    with directory_for("my", owner) as directory:
        data = directory / "data"
        _run(
            owner,
            directory,
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                "--innodb-log-file-size=16M",
            ],
        )
        command = [
            mariadbd,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={directory / 'mariadb.sock'}",
            f"--pid-file={directory / 'mariadb.pid'}",
            f"--tmpdir={directory}",
            "--skip-networking",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
            *options,
        ]
        with serve(owner, directory, command, stop=signal.SIGTERM) as process:
            server = MariaDBServer(directory, process)
            wait_for(server.vendor, directory, process, lambda: server.execute("SELECT 1"))
            yield server


def wait_for(
    name: str,
    directory: Path,
    process: subprocess.Popen[bytes],
    connect: Callable[[], object],
    seconds: float = _START_TIMEOUT,
) -> None:
    """Wait until ``connect`` does not raise.

    Raises:
        ServiceUnavailable: the server has ended, or takes too long; with the end of its log.
    """
    last: list[Exception] = []

    def ready() -> bool:
        if process.poll() is not None:
            raise ServiceUnavailable(
                f"{name} ended with status {process.returncode}; its log says:\n" + _tail(directory)
            )
        try:
            connect()
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 - each driver has its own for "not listening yet"
            last[:] = [error]
            return False
        return True

    try:
        wait_until(ready, seconds, f"{name} answers")
    except TimeoutError as error:
        raise ServiceUnavailable(f"{error}: {last}; its log says:\n{_tail(directory)}") from error


def _tail(directory: Path) -> str:
    return (directory / "server.log").read_text("utf-8", "replace")[-3000:]


@contextmanager
def directory_for(name: str, owner: str | None) -> Iterator[Path]:
    """Make a directory of its own for a server, for the length of a ``with`` block."""
    # A socket's path must stay under 108 bytes: not below pytest's own temporary directory.
    directory = Path(tempfile.mkdtemp(prefix=f"oa-{name}-"))
    if owner is not None:
        shutil.chown(directory, owner)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def serve(
    owner: str | None,
    directory: Path,
    command: list[str],
    stop: signal.Signals,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of a ``with`` block; what it says is in ``server.log``."""
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        # The server ends with us even if we are killed.
        command = [setpriv, "--pdeathsig", stop.name.removeprefix("SIG"), *command]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **(_as(owner, directory) | ({} if environment is None else {"env": environment})),
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _run(owner: str | None, directory: Path, command: list[str]) -> None:
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        **_as(owner, directory),
    )
    if done.returncode != 0:
        raise ServiceUnavailable(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _as(owner: str | None, directory: Path) -> dict[str, Any]:
    """Return the arguments of :mod:`subprocess` that run a command as ``owner``, in ``directory``."""
    arguments: dict[str, Any] = {"cwd": directory}
    if owner is not None:
        entry = pwd.getpwnam(owner)
        arguments |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        arguments["env"] = os.environ | {"HOME": str(directory), "USER": owner}
    return arguments


def _unprivileged(preferred: str) -> str | None:
    """Return the user a server must run as, ``None`` to stay who we are."""
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise ServiceUnavailable(
        f"database servers refuse to run as root, and there is neither a user {preferred!r} nor 'nobody': "
        "add one, or run the tests as another user"
    )


def _postgresql_binaries() -> tuple[str, str]:
    # Debian keeps them off PATH, one directory a version.
    found = sorted(Path(_DEBIAN_POSTGRESQL).glob("*/bin"), key=lambda path: float(path.parent.name))
    path = os.pathsep.join([*(str(directory) for directory in reversed(found)), os.environ.get("PATH", "")])
    return _binary("initdb", "postgresql", path), _binary("postgres", "postgresql", path)


def _binary(name: str, package: str, path: str | None = None) -> str:
    # /usr/sbin is not on every user's PATH.
    search = (path or os.environ.get("PATH", "")) + os.pathsep + "/usr/sbin:/usr/local/sbin"
    found = shutil.which(name, path=search)
    if found is None:
        raise ServiceUnavailable(
            f"{name} is not installed: run `make packages` (as root), or install {package} with your "
            "system's package manager"
        )
    return found
