"""A bucket in memory: Google's JSON interface for Orbax's arrays, an etils backend for the rest.

Like the real one it has objects and no folders, replaces objects whole, and appends to none.
"""

import contextlib
import fnmatch
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import urllib3
from etils.epath import backend, stat_utils

from simclr_jax.store import ranges


class Bucket:
    """Objects by name, each with the generation that conditional requests name."""

    def __init__(self):
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.lock = threading.RLock()
        self.generation = 0

    def put(self, name, data):
        with self.lock:
            self.generation += 1
            self.objects[name] = (bytes(data), self.generation)
            return self.generation

    def below(self, folder):
        prefix = folder.rstrip("/") + "/" if folder else ""
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's bucket, as Google's JSON interface does."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def conditions_hold(self, name, query):
        current = self.bucket.objects.get(name, (b"", 0))[1]
        wanted = query.get("ifGenerationMatch")
        unwanted = query.get("ifGenerationNotMatch")
        if wanted and int(wanted[0]) != current:
            return False
        return not (unwanted and int(unwanted[0]) == current)

    def parsed(self):
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query)

    def do_GET(self):
        path, query = self.parsed()
        if re.fullmatch(r".*/b/[^/]+/o", path):
            prefix = query.get("prefix", [""])[0]
            names = [name for name in sorted(self.bucket.objects) if name.startswith(prefix)]
            items = [{"name": name, "size": len(self.bucket.objects[name][0])} for name in names]
            return self.answer(200, {"items": items})
        name = unquote(path.split("/o/", 1)[1])
        if name not in self.bucket.objects:
            return self.answer(404)
        if not self.conditions_hold(name, query):
            return self.answer(304)
        data, generation = self.bucket.objects[name]
        status, headers = 200, {"x_goog_generation": generation}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            first, last = int(span[1]), int(span[2] or len(data) - 1)
            if first >= len(data):
                return self.answer(416)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        return self.answer(status, data, **headers)

    def do_POST(self):
        _, query = self.parsed()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        name = query["name"][0]
        with self.bucket.lock:
            if not self.conditions_hold(name, query):
                return self.answer(412)
            return self.answer(200, {"name": name, "generation": str(self.bucket.put(name, data))})

    def do_DELETE(self):
        path, query = self.parsed()
        name = unquote(path.split("/o/", 1)[1])
        with self.bucket.lock:
            if name not in self.bucket.objects:
                return self.answer(404)
            if not self.conditions_hold(name, query):
                return self.answer(412)
            del self.bucket.objects[name]
        return self.answer(204)


def serve(bucket):
    """The interface's address, and what shuts it down."""
    handler = type("OfBucket", (Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}", stop


@contextlib.contextmanager
def asked_for_ranges(monkeypatch):
    """gs://bucket for `ranges`, as a `Bucket` with the statuses that it refuses with first.

    Where its `whole` is true, it sends all of an object. Its `asked` lists the object, the first
    byte and the byte after the last one of each request.
    """
    bucket = Bucket()
    bucket.refusals, bucket.asked, bucket.whole = [], [], False
    ask = Handler.do_GET

    def do_get(self):
        if bucket.refusals:
            return self.answer(bucket.refusals.pop())
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        bucket.asked.append((unquote(self.path.split("/o/")[1].split("?")[0]), first, last + 1))
        if bucket.whole:
            del self.headers["Range"]
        return ask(self)

    address, stop = serve(bucket)
    requests = ranges._Requests(urllib3.PoolManager(maxsize=64, retries=1), address)
    with monkeypatch.context() as patched:
        patched.setattr(Handler, "do_GET", do_get)
        patched.setattr(ranges, "_of_google", lambda: requests)
        yield bucket
    stop()


class _Upload(io.BytesIO):
    def __init__(self, bucket, name):
        super().__init__()
        self._bucket, self._name = bucket, name

    def seekable(self):
        return False

    def seek(self, *args):
        raise OSError("an object that is written cannot be sought in")

    def close(self):
        if not self.closed:
            self._bucket.put(self._name, self.getvalue())
        super().close()


class Backend(backend.Backend):
    """etils' operations on gs://NAME/… over a `Bucket`; folders are names that end in '/'."""

    def __init__(self, bucket):
        self._bucket = bucket

    def _name(self, path):
        return re.sub(r"^gs://[^/]+/?", "", str(path)).rstrip("/")

    def open(self, path, mode, **kwargs):
        if "a" in mode or "+" in mode:
            raise OSError("objects cannot be appended to")
        name = self._name(path)
        if "w" in mode:
            file = _Upload(self._bucket, name)
        elif name not in self._bucket.objects:
            raise FileNotFoundError(path)
        else:
            file = io.BytesIO(self._bucket.objects[name][0])
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8", write_through=True)

    def exists(self, path):
        return self._name(path) in self._bucket.objects or self.isdir(path)

    def isdir(self, path):
        return not self._name(path) or bool(self._bucket.below(self._name(path)))

    def listdir(self, path):
        name = self._name(path)
        start = len(name) + 1 if name else 0
        below = self._bucket.below(name)
        if not below:
            raise FileNotFoundError(path)
        return sorted({part for part in (n[start:].split("/")[0] for n in below) if part})

    def glob(self, path):
        parts = self._name(path).split("/")
        bucket = str(path).removesuffix(self._name(path))
        names = {tuple(name.split("/")[: len(parts)]) for name in self._bucket.below("")}
        matches = [
            name for name in sorted(names)
            if len(name) == len(parts) and all(map(fnmatch.fnmatchcase, name, parts))
        ]  # fmt: skip
        return [bucket + "/".join(name) for name in matches]

    def walk(self, path, *, top_down=True, on_error=None):
        names = self.listdir(path)
        folders = [name for name in names if self.isdir(f"{path}/{name}")]
        yield str(path), folders, [name for name in names if name not in folders]
        for folder in folders:
            yield from self.walk(f"{path}/{folder}")

    def makedirs(self, path, *, exist_ok=False, mode=None):
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)
        self._bucket.put(self._name(path) + "/", b"")

    def mkdir(self, path, *, exist_ok=False, mode=None):
        self.makedirs(path, exist_ok=exist_ok)

    def rmtree(self, path):
        for name in self._bucket.below(self._name(path)):
            del self._bucket.objects[name]

    def remove(self, path):
        if self._bucket.objects.pop(self._name(path), None) is None:
            raise FileNotFoundError(path)

    def rename(self, path, dst):
        self.copy(path, dst, overwrite=True)
        (self.rmtree if self.isdir(path) else self.remove)(path)

    replace = rename

    def copy(self, path, dst, overwrite=False):
        if not str(path).startswith("gs://"):
            with open(path, "rb") as file:
                self._bucket.put(self._name(dst), file.read())
            return
        old, new = self._name(path), self._name(dst)
        if old in self._bucket.objects:
            self._bucket.put(new, self._bucket.objects[old][0])
        for name in self._bucket.below(old):
            self._bucket.put(new + name[len(old) :], self._bucket.objects[name][0])

    def stat(self, path):
        if not self.exists(path):
            raise FileNotFoundError(path)
        data, generation = self._bucket.objects.get(self._name(path), (b"", 0))
        return stat_utils.StatResult(
            is_directory=self.isdir(path), length=len(data), mtime=generation, owner=None,
            group=None, mode=0o644,
        )  # fmt: skip
