import asyncio
import gzip
import io
import random
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.errors import (
    InvalidField,
    JobError,
    PictureForbidden,
    PictureInvalid,
    PictureTooLarge,
    PictureUnreachable,
)
from darkroom.fetch import guard
from darkroom.fetch.addresses import is_public
from darkroom.fetch.guard import Fetcher, check_address
from darkroom.fetch.transport import MAX_REDIRECTS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "JPEG")
    return file.getvalue()


PICTURE = jpeg()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A real server on loopback; its host:port."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield f"127.0.0.1:{server.port}"


@asynccontextmanager
async def raw_server(talk: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that reads a request's head and then says what `talk` writes, well-formed or not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def picture(request: web.Request) -> web.Response:
    return web.Response(body=PICTURE, content_type="text/html")


class Names(AbstractResolver):
    """A name server in a stranger's hands: the nth question gets the nth answer, the last one for ever;
    an empty one: there is no such name."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind = socket.AF_INET6 if ":" in answer else socket.AF_INET
        if not answer or family not in (socket.AF_UNSPEC, kind):
            raise OSError(socket.EAI_NONAME, "Name or service not known")
        return [ResolveResult(hostname=host, host=answer, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None: ...


def fetch(url: str, *allow: str, max_bytes: int = 10**6, timeout_s: float = 20, names: Names | None = None) -> bytes:
    return asyncio.run(afetch(url, *allow, max_bytes=max_bytes, timeout_s=timeout_s, names=names))


async def afetch(
    url: str, *allow: str, max_bytes: int = 10**6, timeout_s: float = 20, names: Names | None = None
) -> bytes:
    resolver = {"resolver": lambda: names} if names else {}
    return await Fetcher(allow=allow, max_bytes=max_bytes, timeout_s=timeout_s, **resolver).fetch(url, field="image_2")


def run(handler: Handler, path: str = "", **options: float) -> bytes:
    """What fetching `path` from a server with this handler, let through by its host:port, gives."""

    async def main() -> bytes:
        async with serving(handler) as place:
            return await afetch(f"http://{place}/{path}", place, **options)

    return asyncio.run(main())


def run_raw(talk: Callable[[asyncio.StreamWriter], Awaitable[None]], **options: float) -> bytes:
    async def main() -> bytes:
        async with raw_server(talk) as place:
            return await afetch(f"http://{place}/", place, **options)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BACKOFF_S", (0.001, 0.001))


# What may be asked for


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.com/a.png", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("example.com/a.png", "http:// or https://"),
        ("//example.com/a.png", "http:// or https://"),
        ("", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("http://user:secret@example.com/", "user name"),
        ("http://user@example.com/", "user name"),
        ("http:///a.png", "no host"),
        ("https://", "no host"),
        ("http://example.com:0/", "no host"),
        ("http://exa mple.com/", "no host"),
        ("http://ex%61mple.com/", "no host"),
        ("http://[fe80::1%25eth0]/", "no host"),
        ("http://a..b/", "no host"),
        ("http://example.com:99999/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://example.com\\@127.0.0.1/", "malformed"),
        ("http://xn--/", "malformed"),
        ("http://example.com/\nX: 1", "control characters"),
        ("http://example.com/" + "a" * 2048, "2,048"),
        ("http://127.0.0.1/", "not public"),
        ("http://127.1/", "not public"),
        ("http://2130706433/", "not public"),
        ("http://0x7f000001/", "not public"),
        ("http://0x7f.0.0.1/", "not public"),
        ("http://0177.0.0.1/", "not public"),
        ("http://017700000001/", "not public"),
        ("http://0/", "not public"),
        ("http://127.0.0.1./", "not public"),
        ("http://①②⑦.0.0.1/", "not public"),
        ("http://127。0。0。1/", "not public"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://[::ffff:10.0.0.1]/", "not public"),
        ("http://[64:ff9b::a00:1]/", "not public"),
        ("http://localhost/", "not public"),
        ("http://LOCALHOST.:8080/", "not public"),
        ("http://db.localhost/", "not public"),
    ],
)
def test_refused_without_the_network(url: str, problem: str) -> None:
    """What no network has to be asked for is refused at the door, naming field and reason; the fetcher agrees."""
    with pytest.raises(InvalidField, match=problem) as caught:
        check_address(url, field="image_1", allow=())
    assert caught.value.field == "image_1"
    assert caught.value.message.startswith("image_1: ")
    with pytest.raises(PictureForbidden, match=problem):
        fetch(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://Example.COM:8443/a/b.png?c=@d#e",
        "https://bücher.example/ä.jpg",
        "https://a_b.example.com./x",
        "http://8.8.8.8/x",
        "http://134744072/x",
        "http://[2606:4700::1111]:8080/x",
        "http://intranet/photo one.jpg",
    ],
)
def test_taken(url: str) -> None:
    """Names and public addresses pass the door: where names lead is the fetcher's to find out."""
    check_address(url, field="image_1", allow=())


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("http://127.0.0.1:9000/x", "127.0.0.1:9000"),
        ("http://127.1:9000/x", "127.0.0.1:9000"),
        ("http://localhost:9000/x", "127.0.0.1:9000"),
        ("http://localhost:9000/x", "localhost:9000"),
        ("http://10.1.2.3/x", "10.0.0.0/8"),
        ("http://[fd00::7]/x", "fd00::/8"),
        ("http://[::1]:81/x", "[::1]:81"),
    ],
)
def test_let_through(url: str, allow: str) -> None:
    """An entry of the allow list opens its own address and leaves others shut."""
    check_address(url, field="image_1", allow=(allow,))
    with pytest.raises(InvalidField, match="not public"):
        check_address(url, field="image_1", allow=("192.168.7.7:9000", "172.16.0.0/12"))


@given(st.ip_addresses(v=4), st.randoms(use_true_random=False))
def test_spellings_of_an_address(address: IPv4Address, chance: random.Random) -> None:
    """However an IPv4 address is spelled, it is refused if and only if it is not public."""
    number = int(address)
    octets = [number >> shift & 255 for shift in (24, 16, 8, 0)]
    forms = ("{:d}", "{:#x}", "0{:o}")
    spellings = [
        chance.choice(forms).format(number),
        ".".join(chance.choice(forms).format(octet) for octet in octets),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
        f"{address}.",
    ]
    for host in spellings:
        try:
            check_address(f"http://{host}/a.png", field="image_1", allow=())
            taken = True
        except InvalidField:
            taken = False
        assert taken == is_public(address), host


@given(st.ip_addresses(v=6))
def test_ipv6_literals(address: IPv6Address) -> None:
    """An IPv6 literal, short or exploded, is refused if and only if it is not public."""
    for host in (address.compressed, address.exploded):
        try:
            check_address(f"http://[{host}]/a.png", field="image_1", allow=())
            taken = True
        except InvalidField:
            taken = False
        assert taken == is_public(address), host


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """No text makes the check raise anything but InvalidField."""
    for url in (text, "http://" + text):
        with suppress(InvalidField):
            check_address(url, field="image_1", allow=())


# Where sockets connect to


def test_fetches() -> None:
    """A picture comes byte for byte, whatever type the server claims."""
    assert run(picture, "a.jpg") == PICTURE


def test_asks_plainly() -> None:
    """The request carries no cookie, no credentials, and asks for the body as it is."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        if request.path == "/1":
            raise web.HTTPFound("/2", headers={"Set-Cookie": "session=1"})
        return await picture(request)

    run(handler, "1")
    assert [request.path for request in seen] == ["/1", "/2"]
    for request in seen:
        assert request.headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)


def test_no_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables are not obeyed: a proxy would connect where it likes."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert run(picture) == PICTURE


def test_loopback_is_refused() -> None:
    """A server on loopback that no entry lets through is never asked."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request)
        return await picture(request)

    async def main() -> None:
        async with serving(handler) as place:
            port = place.rpartition(":")[2]
            for host in ("127.0.0.1", "localhost", "2130706433"):
                with pytest.raises(PictureForbidden, match=r"image_2.*not public") as caught:
                    await afetch(f"http://{host}:{port}/", f"127.0.0.1:{int(port) ^ 1}")
                assert caught.value.field == "image_2"

    asyncio.run(main())
    assert not asked


@pytest.mark.parametrize("answer", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"])
def test_a_name_that_leads_inside(answer: str) -> None:
    """A harmless name that resolves to a private address is refused, and the address is not given away."""
    with pytest.raises(PictureForbidden, match=r"pictures\.example is not public") as caught:
        fetch("http://pictures.example/a.png", names=Names(answer))
    assert answer not in caught.value.message


def test_rebinding() -> None:
    """A name that is public when first asked for and private afterwards gets no byte from inside."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request)
        return await picture(request)

    async def main() -> None:
        async with serving(handler) as place:
            port = place.rpartition(":")[2]
            names = Names("198.41.0.4", "127.0.0.1")
            await names.resolve("rebind.example")
            with pytest.raises(PictureForbidden, match="not public"):
                await afetch(f"http://rebind.example:{port}/", names=names)
            # Once more across a redirect: the first hop is let through by name, the second asks DNS again.
            names = Names("127.0.0.1")
            with pytest.raises(PictureForbidden, match="not public"):
                await afetch(f"http://inside.example:{port}/", f"other.example:{port}", names=names)

    asyncio.run(main())
    assert not asked


def test_a_name_let_through() -> None:
    """A name on the allow list may lead to a private address, on its own port."""

    async def main() -> None:
        async with serving(picture) as place:
            port = place.rpartition(":")[2]
            names = Names("127.0.0.1")
            url = f"http://store.internal:{port}/a.jpg"
            assert await afetch(url, f"store.internal:{port}", names=names) == PICTURE
            assert await afetch(url, "127.0.0.0/8", names=names) == PICTURE
            assert await afetch(url, place, names=names) == PICTURE

    asyncio.run(main())


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/",
        "http://localhost/",
        "file:///etc/passwd",
        "http://u:p@example.com/",
        "//2130706433/",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_checked(target: str, status: int) -> None:
    """A redirect to anywhere that the client could not have named is refused, at the last hop as at the first."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": target if request.path == "/b" else "/b"})

    with pytest.raises(PictureForbidden, match="image_2: the address redirects to one that"):
        run(handler, "a")


def test_redirect_to_a_name_that_leads_inside() -> None:
    """The check on the socket holds after a redirect too."""

    async def main() -> None:
        async def handler(request: web.Request) -> web.Response:
            port = request.url.port
            raise web.HTTPFound(f"http://second.example:{port}/")

        async with serving(handler) as place:
            port = place.rpartition(":")[2]
            names = Names("127.0.0.1")
            with pytest.raises(PictureForbidden, match=r"second\.example is not public"):
                await afetch(f"http://first.example:{port}/", f"first.example:{port}", names=names)
            assert names.asked == ["first.example", "second.example"]

    asyncio.run(main())


def test_redirects_are_followed_to_a_limit() -> None:
    """Five redirects, relative ones too, are followed; six are too many; one to nowhere is said to be so."""

    async def handler(request: web.Request) -> web.Response:
        left = int(request.match_info["path"].rpartition("/")[2])
        if left:
            return web.Response(status=302, headers={"Location": f"../x/{left - 1}"})
        return await picture(request)

    assert run(handler, f"x/{MAX_REDIRECTS}") == PICTURE
    with pytest.raises(PictureUnreachable, match="redirects more than 5 times"):
        run(handler, f"x/{MAX_REDIRECTS + 1}")

    async def nowhere(request: web.Request) -> web.Response:
        return web.Response(status=302)

    with pytest.raises(PictureUnreachable, match="answered 302 with no address"):
        run(nowhere)


# How much, how long


def test_declared_too_large() -> None:
    """A body that says it is too large is not read."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n" + PICTURE)
        await writer.drain()

    with pytest.raises(PictureTooLarge, match=r"image_2: .* larger than 1,000,000 bytes"):
        run_raw(talk)


def test_exactly_at_the_limit() -> None:
    """The limit itself is allowed, one byte more is not."""
    assert run(picture, max_bytes=len(PICTURE)) == PICTURE
    with pytest.raises(PictureTooLarge):
        run(picture, max_bytes=len(PICTURE) - 1)


@pytest.mark.parametrize("chunked", [True, False])
def test_endless_body(*, chunked: bool) -> None:
    """A body without a length that never ends is cut off at the limit."""
    sent = 0

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        block = PICTURE[:4] + bytes(2**16 - 4)
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while True:
            writer.write(b"10000\r\n" + block + b"\r\n" if chunked else block)
            sent += len(block)
            await writer.drain()

    with pytest.raises(PictureTooLarge):
        run_raw(talk)
    assert sent < 50 * 10**6


def test_a_length_that_lies_low() -> None:
    """More bytes than the length says are no picture cut short: the answer is not believed at all."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 20\r\n\r\n" + PICTURE)
        await writer.drain()

    with pytest.raises(PictureUnreachable, match="broke off"):
        run_raw(talk)


def test_a_length_that_lies_high() -> None:
    """A connection that closes before the length it promised has been reached brings no picture."""
    tries = 0

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + PICTURE)
        await writer.drain()

    with pytest.raises(PictureUnreachable, match="broke off"):
        run_raw(talk)
    assert tries == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_unasked(encoding: str) -> None:
    """A server that compresses all the same is understood, up to the limit on the unfolded size."""

    async def handler(request: web.Request) -> web.Response:
        plain = PICTURE if request.path == "/whole" else PICTURE + bytes(5 * 10**7)
        body = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](plain)
        if request.path == "/cut":
            body = body[: len(body) // 2]
        return web.Response(body=body, headers={"Content-Encoding": encoding})

    assert run(handler, "whole") == PICTURE
    with pytest.raises(PictureTooLarge):
        run(handler, "bomb")
    with pytest.raises(PictureUnreachable, match="broke off"):
        run(handler, "cut", max_bytes=10**8)


def test_compressed_beyond_us() -> None:
    """Encodings that were not asked for and can't be bounded, or don't hold, are refused by name of the field."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=PICTURE, headers={"Content-Encoding": request.match_info["path"]})

    for encoding in ("br", "zstd", "gzip, gzip"):
        with pytest.raises(PictureInvalid, match=r"image_2: .* compressed, unasked"):
            run(handler, encoding)
    with pytest.raises(PictureInvalid, match="not compressed as it says"):
        run(handler, "gzip")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n" + PICTURE])
def test_slow(head: bytes) -> None:
    """A server that says nothing, or trickles its head or body, is left when the time is up."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            await writer.drain()
            await asyncio.sleep(0.02)
            if head:
                writer.write(b"x")

    with pytest.raises(PictureUnreachable, match=r"image_2: the picture did not arrive within 0\.3 s"):
        run_raw(talk, timeout_s=0.3)


# What comes back


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_failures_are_retried(status: int) -> None:
    """A busy or broken server is asked again, a few times."""
    answers = [status, status, 200]

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=answers.pop(0), body=PICTURE)

    assert run(handler) == PICTURE
    answers = [status] * 3
    with pytest.raises(PictureUnreachable, match=rf"image_2: 127\.0\.0\.1 answered {status} \(3 tries\)"):
        run(handler)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
def test_final_failures_are_not(status: int) -> None:
    """An answer that another try would not change is final at once."""
    asked = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status)

    with pytest.raises(PictureUnreachable, match=f"answered {status}"):
        run(handler)
    assert asked == 1


def test_connection_broken_then_well() -> None:
    """A connection dropped before the answer is tried again."""
    tries = 0

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
            await writer.drain()

    assert run_raw(talk) == PICTURE
    assert tries == 2


def test_nobody_there() -> None:
    """A closed port and an unknown name end as unreachable, naming the host as the client wrote it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PictureUnreachable, match=r"image_2: no connection to 127\.0\.0\.1 \(3 tries\)"):
        fetch(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}")

    with pytest.raises(PictureUnreachable, match=r"the name gone\.invalid was not found"):
        fetch("http://gone.invalid/", names=Names(""))


def test_no_tls() -> None:
    """A server that doesn't speak TLS, or with no certificate anyone vouches for, is not asked twice."""
    tries = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(PictureUnreachable, match="no secure connection"):
                await afetch(f"https://{place}/", place)

    asyncio.run(main())
    assert tries == 1
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "nothing"),
        (b"<!doctype html><title>Sign in at intranet</title>", "a web page or text"),
        (b'{"token": "intranet"}', "a web page or text"),
        (b"\x7fELF intranet" + bytes(100), "something else"),
    ],
)
def test_not_a_picture(body: bytes, what: str) -> None:
    """What is not a picture is refused whatever its Content-Type says, and nothing of it is repeated."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="image/png")

    with pytest.raises(PictureInvalid, match=f"image_2: the address answered with {what}") as caught:
        run(handler)
    assert "intranet" not in caught.value.message


def test_not_a_picture_is_left_early() -> None:
    """A large download that begins like no picture is not read to its end."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"MZ" + bytes(2**16))
            await writer.drain()

    with pytest.raises(PictureInvalid, match="something else"):
        run_raw(talk, max_bytes=10**12)


def test_ill_formed_answers() -> None:
    """Answers that are not HTTP end as one of the fetcher's own errors."""
    for noise in (b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 50_000, b"\x00" * 100):

        async def talk(writer: asyncio.StreamWriter, noise: bytes = noise) -> None:
            writer.write(noise)
            await writer.drain()

        with pytest.raises(JobError, match="image_2: "):
            run_raw(talk)


def test_cancelled() -> None:
    """Cancelling a fetch ends it at once, as what it is."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with raw_server(talk) as place:
            task = asyncio.create_task(afetch(f"http://{place}/", place))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    begun = asyncio.Event()
    asyncio.run(main())
