"""Object storage on this machine: as much of S3's wire protocol as an object store's client speaks, kept in memory.

The client is LanceDB's real one. Writes with `If-None-Match: *` fail where the key is there, as on S3: that is what
lets one of two writers win.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class _Objects:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.found: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: _Objects

    def log_message(self, format: str, *args: object) -> None:
        self.objects.requests.append(f"{self.command} {self.path}")

    def _request(self) -> tuple[str, dict[str, str], bytes]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            body = _unchunked(body)
        return unquote(parts.path).removeprefix("/bucket").removeprefix("/"), query, body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>not there</Message></Error>")

    def do_HEAD(self) -> None:
        key, _, _ = self._request()
        data = self.objects.found.get(key)
        if data is None:
            return self._missing()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", _tag(data))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
        return self.end_headers()

    def do_GET(self) -> None:
        key, query, _ = self._request()
        if "list-type" in query:
            return self._list(query)
        data = self.objects.found.get(key)
        if data is None:
            return self._missing()
        headers = {"ETag": _tag(data), "Last_Modified": "Fri, 27 Nov 2026 00:00:00 GMT"}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._answer(200, data, **headers)
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        return self._answer(206, data[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(data)}", **headers)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("start-after", "")
        contents, folders = [], set()
        with self.objects.lock:
            for key, data in sorted(self.objects.found.items()):
                if not key.startswith(prefix) or key <= after:
                    continue
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                    continue
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{escape(_tag(data))}</ETag>"
                    "<LastModified>2026-11-27T00:00:00.000Z</LastModified></Contents>"
                )
        prefixes = (f"<Prefix>{escape(each)}</Prefix>" for each in sorted(folders))
        common = "".join(f"<CommonPrefixes>{each}</CommonPrefixes>" for each in prefixes)
        listing = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(contents)}{common}</ListBucketResult>"
        self._answer(200, listing.encode(), Content_Type="application/xml")

    def do_PUT(self) -> None:
        key, query, body = self._request()
        with self.objects.lock:
            if "partNumber" in query:
                self.objects.parts[query["uploadId"]][int(query["partNumber"])] = body
                return self._answer(200, ETag=_tag(body))
            source = self.headers.get("x-amz-copy-source")
            if source is not None:
                body = self.objects.found[unquote(source).lstrip("/").removeprefix("bucket/")]
            if self.headers.get("If-None-Match") == "*" and key in self.objects.found:
                return self._answer(412, b"<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>")
            self.objects.found[key] = body
        copied = f"<CopyObjectResult><ETag>{escape(_tag(body))}</ETag></CopyObjectResult>" if source else ""
        return self._answer(200, copied.encode(), ETag=_tag(body))

    def do_POST(self) -> None:
        key, query, body = self._request()
        with self.objects.lock:
            if "delete" in query:
                keys = [unquote(each) for each in re.findall(r"<Key>(.*?)</Key>", body.decode())]
                for each in keys:
                    self.objects.found.pop(each, None)
                done = "".join(f"<Deleted><Key>{escape(each)}</Key></Deleted>" for each in keys)
                return self._answer(200, f"<DeleteResult>{done}</DeleteResult>".encode())
            if "uploads" in query:
                upload = str(len(self.objects.parts))
                self.objects.parts[upload] = {}
                name, started = "InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"
                return self._answer(200, f"<{name}>{started}</{name}>".encode())
            if self.headers.get("If-None-Match") == "*" and key in self.objects.found:
                return self._answer(412, b"<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>")
            parts = self.objects.parts.pop(query["uploadId"])
            self.objects.found[key] = b"".join(parts[number] for number in sorted(parts))
        done = f"<CompleteMultipartUploadResult><ETag>{escape(_tag(b''))}</ETag></CompleteMultipartUploadResult>"
        return self._answer(200, done.encode())

    def do_DELETE(self) -> None:
        key, _, _ = self._request()
        self.objects.found.pop(key, None)
        self._answer(204)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _unchunked(body: bytes) -> bytes:
    data = b""
    while body:
        size, body = body.split(b"\r\n", 1)
        length = int(size.split(b";")[0], 16)
        if not length:
            break
        data, body = data + body[:length], body[length + 2 :]
    return data


@contextmanager
def object_storage() -> Iterator[tuple[dict[str, str], _Objects]]:
    """Serve an empty bucket named `bucket`; give LanceDB's options for it, and what it holds."""
    objects = _Objects()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": objects}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    options = {
        "endpoint": f"http://127.0.0.1:{server.server_address[1]}",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "aws_region": "us-east-1",
        "allow_http": "true",
    }
    try:
        yield options, objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
