"""The way out, through stunnel and microsocks; each way it can fail has words of its own."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from bridge.smgw import diagnosis, socks, tunnel
from bridge.smgw.bundle import key_pem
from bridge.smgw.diagnosis import TunnelError
from bridge.smgw.issue import Wish, self_signed
from bridge.smgw.pump import close
from bridge.smgw.tunnel import Tunnel
from tests.mqtt.brokers import free_port
from tests.smgw import rig
from tests.smgw.rig import Paper, Papers, config, credentials, far_end, gateway, said, stunnel

pytestmark = pytest.mark.system("stunnel4", "microsocks", "openssl")


def fails(way: Tunnel, host: str = "127.0.0.1", port: int = 9) -> TunnelError:
    """What is wrong with the way to a destination."""
    with pytest.raises(TunnelError) as caught:
        asyncio.run(way.open(host, port))
    assert way.states == {f"{host}:{port}": str(caught.value)}
    assert way.opened == 0
    return caught.value


# ----------------------------------------------------------------------------------------------------- it works


@pytest.mark.parametrize("curve", ["brainpoolP256r1", "brainpoolP384r1", "prime256v1"])
def test_through_tls_and_socks(tmp_path: Path, curve: str) -> None:
    papers = Papers.made(tmp_path, curve)

    async def go(way: Tunnel) -> None:
        steps = []
        async with far_end() as port:
            reader, writer = await way.walk("localhost", port, lambda step, text: steps.append((step, text)))
            assert await said(reader, writer, b"through the gateway") == b"through the gateway"
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
            assert writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            await close(writer)
        assert way.states == {}
        assert [step for step, _ in steps] == ["tcp", "tls", "certificate", "socks", "destination"]
        assert "ECDHE-ECDSA" in steps[1][1]

    with gateway(tmp_path, papers) as port:
        asyncio.run(go(rig.tunnel(port, papers)))


def test_megabytes_come_through_unchanged(tmp_path: Path, papers: Papers) -> None:
    async def go(way: Tunnel) -> None:
        async with far_end() as port:
            reader, writer = await way.open("127.0.0.1", port)
            assert (way.states, way.opened) == ({f"127.0.0.1:{port}": "open"}, 1)
            text = bytes(range(256)) * 8192
            writer.write(text)
            assert await reader.readexactly(len(text)) == text
            await close(writer)

    with gateway(tmp_path, papers) as port:
        asyncio.run(go(rig.tunnel(port, papers)))


def test_tls_inside_tls(tmp_path: Path, papers: Papers, nist_papers: Papers) -> None:
    """What wss to a back end needs: a second handshake, with the back end's own name and certificate."""
    back_end = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    back_end.load_cert_chain(nist_papers.smgw.certificate, nist_papers.smgw.key)
    inner = ssl.create_default_context(cafile=str(nist_papers.smgw.certificate))
    inner.check_hostname = False

    async def go(way: Tunnel) -> None:
        async with far_end(tls=back_end) as port:
            reader, writer = await way.open("127.0.0.1", port)
            await writer.start_tls(inner, server_hostname="backend.example")
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            text = b"inside" * 50_000
            assert await said(reader, writer, text) == text
            await close(writer)
            await writer.wait_closed()

    with gateway(tmp_path, papers) as port:
        asyncio.run(go(rig.tunnel(port, papers)))


def test_the_destination_as_tls_sni(tmp_path: Path, papers: Papers) -> None:
    async def go() -> None:
        async with far_end() as emt:
            # The service without a name refuses; the other one has its name by SNI.
            named = f"[emt]\nsni = hks3:backend.example\nconnect = 127.0.0.1:{emt}"
            shown = f"cert = {papers.smgw.certificate}\nkey = {papers.smgw.key}\nCAfile = {papers.cls.certificate}"
            with stunnel(tmp_path, papers, free_port(), named, shown, "verifyPeer = yes") as port:
                way = Tunnel(config(port, tunnel="sni"), credentials(papers))
                steps: list[str] = []
                reader, writer = await way.walk("backend.example", 443, lambda step, _: steps.append(step))
                assert await said(reader, writer, b"by name") == b"by name"
                assert steps == ["tcp", "tls", "certificate"]
                await close(writer)

    asyncio.run(go())


def test_a_sidecar_speaks_tls_in_our_place(tmp_path: Path, papers: Papers) -> None:
    async def go(way: Tunnel) -> None:
        async with far_end() as port:
            reader, writer = await way.open("127.0.0.1", port)
            assert await said(reader, writer, b"beside") == b"beside"
            await close(writer)

    with gateway(tmp_path, papers) as port:
        near = free_port()
        file = tmp_path / "sidecar.conf"
        file.write_text(
            f"foreground = quiet\npid =\ndebug = 3\n[cls]\nclient = yes\naccept = 127.0.0.1:{near}\n"
            f"connect = 127.0.0.1:{port}\ncert = {papers.cls.certificate}\nkey = {papers.cls.key}\n"
            f"CAfile = {papers.smgw.certificate}\nverifyPeer = yes\ncurves = brainpoolP256r1\n"
            "sslVersionMax = TLSv1.2\n"
        )
        with rig.running(near, "stunnel4", file):
            asyncio.run(go(Tunnel(config(1, sidecar=f"127.0.0.1:{near}"), _no_credentials)))


def _no_credentials() -> tuple[ssl.SSLContext, str]:
    raise BridgeError("cls: no such certificate; there are none")


def test_a_new_certificate_counts_from_the_next_connection_on(tmp_path: Path, papers: Papers) -> None:
    given = [credentials(papers, own=papers.stranger), credentials(papers)]
    with gateway(tmp_path, papers) as port:
        way = Tunnel(config(port), lambda: given.pop(0)())
        assert "does not accept our certificate" in fails(way).text
        assert "refuses connections" in fails(Tunnel(way.config, lambda: given[0]())).text  # by the far end, SOCKS 5


def test_sessions_end_before_48_hours_and_not_all_at_once() -> None:
    way = Tunnel(config(1, session_max_h=48), _no_credentials)
    ends = {way.session_s() for _ in range(100)}
    assert len(ends) > 90
    assert all(45 * 3600 < end <= 48 * 3600 for end in ends)


# ------------------------------------------------------------------------------------------------ TCP and TLS


def test_nobody_is_there(papers: Papers) -> None:
    error = fails(rig.tunnel(free_port(), papers))
    assert (error.step, "refuses connections" in error.text) == ("tcp", True)
    assert "address and port" in error.advice


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "does not answer"),
        (OSError(errno.ETIMEDOUT, "x"), "does not answer"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route"),
        (OSError(errno.ENETUNREACH, "x"), "no route"),
        (socket.gaierror(-2, "x"), "no such host"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_what_tcp_says(error: OSError, text: str) -> None:
    told = diagnosis.of_tcp(error, "192.168.100.1:4433")
    assert told.step == "tcp"
    assert text in told.text
    assert "192.168.100.1:4433" in told.text


async def _speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read()
    writer.close()


async def _says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("serve", "text"),
    [(_speaks_first, "speaks no TLS"), (_says_nothing, "nobody answers our hello"), (_hangs_up, "hangs up")],
)
def test_what_answers_is_no_gateway(
    papers: Papers, monkeypatch: pytest.MonkeyPatch, serve: rig.Served, text: str
) -> None:
    monkeypatch.setattr(tunnel, "ANSWER_S", 0.3)

    async def go() -> TunnelError:
        async with far_end(serve) as port:
            with pytest.raises(TunnelError) as caught:
                await rig.tunnel(port, papers).open("127.0.0.1", 9)
            return caught.value

    error = asyncio.run(go())
    assert error.step == "tls"
    assert text in error.text


def test_our_certificate_is_refused(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port:
        error = fails(Tunnel(config(port), credentials(papers, own=papers.stranger)))
    assert error.step == "certificate"
    assert error.text == "the gateway does not accept our certificate (alert unknown_ca)"
    assert "our certificate" in error.advice


def test_our_certificate_is_refused_by_tls_1_3(tmp_path: Path, nist_papers: Papers) -> None:
    """The handshake succeeds; only the first read tells."""
    newest = {"newest": ssl.TLSVersion.TLSv1_3}
    with gateway(tmp_path, nist_papers) as port:
        error = fails(Tunnel(config(port), credentials(nist_papers, own=nist_papers.stranger, **newest)))
        assert error.step == "certificate"
        assert "not accept our certificate" in error.text
        fine = fails(Tunnel(config(port), credentials(nist_papers, **newest)), port=free_port())
        assert fine.step == "destination"


def test_our_certificate_is_refused_without_a_word(nist_papers: Papers) -> None:
    """Some servers just hang up; asyncio's is one, it loses the alert."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(nist_papers.smgw.certificate, nist_papers.smgw.key)
    server.load_verify_locations(nist_papers.cls.certificate)
    server.verify_mode = ssl.CERT_REQUIRED

    async def go() -> TunnelError:
        async with far_end(tls=server) as port:
            newest = credentials(nist_papers, own=nist_papers.stranger, newest=ssl.TLSVersion.TLSv1_3)
            with pytest.raises(TunnelError) as caught:
                await Tunnel(config(port), newest).open("127.0.0.1", 9)
            return caught.value

    error = asyncio.run(go())
    assert error.step == "certificate"
    assert "hangs up after the handshake" in error.text


def test_another_certificate_than_the_pinned_one(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers, shows=papers.stranger) as port:
        error = fails(rig.tunnel(port, papers))
    assert error.step == "certificate"
    assert "another certificate than smgw.gateway_certificate" in error.text


def test_a_certificate_issued_by_the_pinned_one_is_not_it(tmp_path: Path, papers: Papers) -> None:
    """OpenSSL would be content: only the fingerprints tell them apart."""
    issuer = Paper(tmp_path / "issuer.crt", tmp_path / "issuer.key")
    child = Paper(tmp_path / "child.crt", tmp_path / "child.key")
    for one in (issuer, child):
        rig._openssl("ecparam", "-name", papers.curve, "-genkey", "-noout", "-out", one.key)
    rig._openssl("req", "-x509", "-new", "-key", issuer.key, "-out", issuer.certificate, "-subj", "/CN=issuer")
    rig._openssl("req", "-new", "-key", child.key, "-out", tmp_path / "child.csr", "-subj", "/CN=child")
    signed = ("-CA", issuer.certificate, "-CAkey", issuer.key, "-CAcreateserial", "-out", child.certificate)
    rig._openssl("x509", "-req", "-in", tmp_path / "child.csr", *signed)
    with gateway(tmp_path, papers, shows=child) as port:
        error = fails(Tunnel(config(port), credentials(papers, peer=issuer)))
    assert error.step == "certificate"
    assert tunnel.fingerprint(child.der) in error.text


def test_the_gateways_certificate_has_expired(tmp_path: Path, papers: Papers) -> None:
    long_ago = self_signed(Wish("old"), days=1, now_utc=1.6e9)
    old = Paper(tmp_path / "old.crt", tmp_path / "old.key")
    old.certificate.write_bytes(long_ago.certificates_pem())
    assert long_ago.key
    old.key.write_bytes(key_pem(long_ago.key))
    with gateway(tmp_path, papers, shows=old) as port:
        error = fails(Tunnel(config(port), credentials(papers, peer=old)))
    assert (error.step, error.text) == ("certificate", "the gateway's certificate has expired")
    assert "new HAN certificate" in error.advice


@pytest.mark.parametrize("line", ["curves = secp384r1", "ciphers = ECDHE-RSA-AES128-GCM-SHA256"])
def test_no_curve_or_suite_in_common(tmp_path: Path, papers: Papers, nist_papers: Papers, line: str) -> None:
    with gateway(tmp_path, papers, line) as port:
        error = fails(rig.tunnel(port, papers))
    assert error.step == "tls"
    assert "no curve or cipher suite in common" in error.text
    assert "smgw.crypto" in error.advice


def test_no_version_in_common(tmp_path: Path, nist_papers: Papers) -> None:
    with gateway(tmp_path, nist_papers, "sslVersion = TLSv1.3") as port:
        error = fails(rig.tunnel(port, nist_papers))
    assert error.step == "tls"
    assert "no version of TLS in common" in error.text


def test_hellos_of_openssl_that_are_not_borne() -> None:
    class Alert47(ssl.SSLError):
        reason = "SSLV3_ALERT_ILLEGAL_PARAMETER"

    assert "sidecar" in diagnosis.of_tls(Alert47()).advice


def test_a_sidecar_that_does_not_run_and_one_that_gets_nowhere(tmp_path: Path, papers: Papers) -> None:
    """That is no matter for the administrator of the gateway."""
    near = free_port()
    way = Tunnel(config(1, sidecar=f"127.0.0.1:{near}"), _no_credentials)
    absent = fails(way)
    with socket.create_server(("127.0.0.1", near)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        idle = fails(way)
    assert absent.text == f"127.0.0.1:{near} (smgw.sidecar): Connection refused"
    assert idle.text == "the sidecar hangs up before SOCKS begins"
    assert "sidecar" in absent.advice
    assert "sidecar" in idle.advice


def test_a_certificate_of_ours_that_is_missing(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port:
        error = fails(Tunnel(config(port), _no_credentials))
    assert (error.step, error.text) == ("certificate", "cls: no such certificate; there are none")


@pytest.mark.parametrize(("fatal", "step"), [(True, "destination"), (False, "certificate")])
def test_an_unknown_name_in_sni(papers: Papers, fatal: bool, step: str) -> None:
    """A gateway may say so by an alert (RFC 6066, 3), or show a certificate for somebody else."""
    port = free_port()
    shown = ("-cert", papers.stranger.certificate, "-key", papers.stranger.key, "-named_curve", papers.curve)
    named = ("-servername", "other.example", "-cert2", papers.smgw.certificate, "-key2", papers.smgw.key)
    strict = ("-servername_fatal",) if fatal else ()
    with rig.running(port, "openssl", "s_server", "-accept", f"127.0.0.1:{port}", *shown, *named, *strict):
        error = fails(Tunnel(config(port, tunnel="sni"), credentials(papers)), "backend.example", 443)
    assert error.step == step
    assert not fatal or (error.text, "backend.example" in error.advice) == (
        "the gateway knows no backend.example",
        True,
    )


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::1", ".example", "a" * 70 + ".example"])
def test_what_sni_cannot_say(tmp_path: Path, papers: Papers, host: str) -> None:
    """RFC 6066, 3: names only."""
    with gateway(tmp_path, papers) as port:
        error = fails(Tunnel(config(port, tunnel="sni"), credentials(papers)), host, 443)
    assert error.step == "destination"
    assert "name of the destination" in error.advice


# ------------------------------------------------------------------------------------------------------- SOCKS


def test_the_destination_refuses(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port:
        error = fails(rig.tunnel(port, papers), port=free_port())
    assert error.step == "destination"
    assert "it refuses connections (SOCKS 5)" in error.text


def test_a_proxy_that_wants_a_password(tmp_path: Path, papers: Papers) -> None:
    wanting = free_port()
    with (
        rig.running(wanting, "microsocks", "-i", "127.0.0.1", "-p", wanting, "-u", "user", "-P", "secret"),
        stunnel(tmp_path, papers, wanting) as port,
    ):
        error = fails(rig.tunnel(port, papers))
    assert error.step == "socks"
    assert "takes none of our methods" in error.text


def answered(*answers: bytes, host: str = "backend.example") -> bytes:
    """What :mod:`bridge.smgw.socks` says to a proxy that gives these answers."""

    async def go() -> bytes:
        heard = b""

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal heard
            for answer in answers:
                heard += await reader.read(512)
                writer.write(answer)
            await close(writer)

        async with far_end(proxy) as port:
            way = Tunnel(config(1, sidecar=f"127.0.0.1:{port}"), _no_credentials)
            _, writer = await way.open(host, 443)
            await close(writer)
        return heard

    return asyncio.run(go())


GREETED = b"\x05\x00"
GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("backend.example", b"\x03\x0fbackend.example"),
        ("192.0.2.7", b"\x01\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ("bücher.example", b"\x03\x15xn--bcher-kva.example"),
    ],
)
def test_names_go_unresolved_and_addresses_as_they_are(host: str, written: bytes) -> None:
    assert answered(GREETED, GRANTED, host=host) == b"\x05\x01\x00" + b"\x05\x01\x00" + written + b"\x01\xbb"


@pytest.mark.parametrize("bound", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x05proxy"])
def test_where_the_gateways_connection_begins_is_skipped(bound: bytes) -> None:
    async def go() -> None:
        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(512)
            writer.write(GREETED)
            await reader.read(512)
            writer.write(b"\x05\x00\x00" + bound + b"\x00\x50" + b"first words")
            await close(writer)

        async with far_end(proxy) as port:
            way = Tunnel(config(1, sidecar=f"127.0.0.1:{port}"), _no_credentials)
            reader, writer = await way.open("backend.example", 443)
            assert await reader.read() == b"first words"
            await close(writer)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("reply", "step", "text"),
    [
        (1, "socks", "general failure"),
        (2, "destination", "does not allow it"),
        (3, "destination", "no network"),
        (4, "destination", "cannot reach it"),
        (5, "destination", "refuses connections"),
        (6, "destination", "too far away"),
        (7, "socks", "does not know CONNECT"),
        (8, "socks", "this kind of address"),
        (9, "socks", "unknown code 9"),
    ],
)
def test_every_refusal_has_its_words(reply: int, step: str, text: str) -> None:
    with pytest.raises(TunnelError, match=text) as caught:
        answered(GREETED, bytes((5, reply, 0, 1)) + bytes(6))
    assert caught.value.step == step
    assert f"(SOCKS {reply})" in caught.value.text
    assert "backend.example:443" in caught.value.text


def test_the_words_are_all_different() -> None:
    assert len({text for _, text, _ in socks._REFUSALS.values()}) == 8


@pytest.mark.parametrize(
    ("answers", "step", "text"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "socks", "no SOCKS5 proxy"),
        ((b"\x05\x02",), "socks", "wants method 2"),
        ((b"\x05\xff",), "socks", "takes none of our methods"),
        ((b"",), "socks", "hangs up before SOCKS begins"),
        ((GREETED, b"\x04\x00\x00\x01"), "socks", "no SOCKS5"),
        ((GREETED, b"\x05\x00\x00\x09"), "socks", "no SOCKS5"),
        ((GREETED, b"\x05\x00"), "destination", "hangs up instead of connecting"),
    ],
)
def test_proxies_that_talk_nonsense(answers: tuple[bytes, ...], step: str, text: str) -> None:
    with pytest.raises(TunnelError, match=text) as caught:
        answered(*answers)
    assert caught.value.step == step


def test_a_name_that_is_none() -> None:
    with pytest.raises(TunnelError, match="no name of a host"):
        answered(GREETED, GRANTED, host="a" * 300)


def test_a_gateway_that_never_answers_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "DESTINATION_S", 0.2)

    async def go() -> None:
        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(512)
            writer.write(GREETED)
            await reader.read()
            await close(writer)

        async with far_end(proxy) as port:
            await Tunnel(config(1, sidecar=f"127.0.0.1:{port}"), _no_credentials).open("backend.example", 443)

    with pytest.raises(TunnelError, match="no answer within") as caught:
        asyncio.run(go())
    assert caught.value.step == "destination"


def test_the_state_is_logged_once_per_change(papers: Papers, caplog: pytest.LogCaptureFixture) -> None:
    way = rig.tunnel(free_port(), papers)
    for _ in range(3):
        fails(way)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["tunnel to 127.0.0.1"]


def test_handshakes_come_two_at_a_time(tmp_path: Path, papers: Papers) -> None:
    """After a cut everybody comes back at once; the gateway sees a queue."""
    at_once = most = 0

    async def go(way: Tunnel) -> None:
        nonlocal at_once, most
        dial = way._dial

        async def counting(passed: tunnel.Passed) -> tunnel.Streams:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            try:
                return await dial(passed)
            finally:
                at_once -= 1

        way._dial = counting  # type: ignore[method-assign]
        async with far_end() as port:
            opened = await asyncio.gather(*(way.open("127.0.0.1", port) for _ in range(8)))
            for _, writer in opened:
                await close(writer)

    with gateway(tmp_path, papers) as port:
        asyncio.run(go(rig.tunnel(port, papers)))
    assert most == tunnel.HANDSHAKES
