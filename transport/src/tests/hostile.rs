//! What makes no sense ends its connection, and the server goes on serving others.

use protocol::{
    codec,
    frame::{self, FRAME_BYTES_MAX},
    message::handshake::Hello,
    version,
};
use tokio::time::timeout;

use super::*;
use crate::connection::CLOSE_VIOLATION;

/// A farm with an honest worker on it, and one that is not.
struct Siege {
    running: Running,
    bystander: Connection,
    enemy: Credentials,
}

impl Siege {
    async fn new() -> Self {
        let farm = Farm::new();
        let client = farm.client(Role::Worker);
        let enemy = farm.member(Role::Worker);
        let server = farm.server(Role::Coordinator);
        let running = Running::start(farm, server);
        let bystander = client
            .connect(running.addr, Role::Coordinator)
            .await
            .unwrap();
        Self {
            running,
            bystander,
            enemy,
        }
    }

    /// The honest worker is served, and so is a new one.
    async fn holds(&self) {
        assert_eq!(ask(&self.bystander, "as ever").await.unwrap(), "as ever");
        let client = Client::new(&self.enemy).unwrap();
        let connection = client
            .connect(self.running.addr, Role::Coordinator)
            .await
            .unwrap();
        assert_eq!(ask(&connection, "me too").await.unwrap(), "me too");
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&frame::header(message)[..], message].concat()
}

fn hello() -> Vec<u8> {
    hello_of(version::PROGRAM)
}

fn hello_of(program: &str) -> Vec<u8> {
    let hello = Hello {
        protocol: version::PROTOCOL,
        program: program.to_owned(),
        purpose: Purpose::Requests,
    };
    framed(&codec::encode(&hello).unwrap())
}

/// Sends bytes on a stream of their own, and the end of it.
async fn throw(quic: &quinn::Connection, bytes: &[u8]) -> quinn::RecvStream {
    let (mut send, receive) = quic.open_bi().await.unwrap();
    // The other side may end the connection before all is sent.
    let _sent = send.write_all(bytes).await;
    let _finished = send.finish();
    receive
}

async fn reason(quic: &quinn::Connection) -> String {
    let closed = timeout(Duration::from_secs(10), quic.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed.unwrap() else {
        panic!("the server ends the connection with a reason");
    };
    assert_eq!(close.error_code, CLOSE_VIOLATION);
    String::from_utf8(close.reason.to_vec()).unwrap()
}

#[tokio::test]
async fn nonsense_instead_of_a_hello_ends_the_connection() {
    let mut siege = Siege::new().await;
    let hello = hello();
    for (what, bytes, expected) in [
        (
            "garbage",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "frame says it has 542393671 bytes",
        ),
        (
            "oversized",
            framed(&vec![0; 5_000]),
            "at most 4096 are allowed here",
        ),
        (
            "truncated",
            hello[..hello.len() - 1].to_vec(),
            "stream ends after",
        ),
        (
            "half a header",
            vec![1, 0],
            "stream ends after 2 of 4 bytes",
        ),
        (
            "undecodable",
            framed(&[u8::try_from(version::PROTOCOL).unwrap(), 255, 255, 255]),
            "frame holds no such message",
        ),
        ("empty frame", framed(b""), "frame holds no such message"),
        (
            "replayed",
            [&hello[..], &hello[..]].concat(),
            "more follows the last message",
        ),
    ] {
        let quic = silent(&siege.enemy, siege.running.addr).await;
        let _receive = throw(&quic, &bytes).await;
        let reason = reason(&quic).await;
        assert!(reason.contains(expected), "{what}: {reason}");
        let error = siege.running.failed().await;
        assert!(
            matches!(error, HandshakeError::Greet { .. }),
            "{what}: {}",
            chain(&error)
        );
        siege.holds().await;
    }
}

#[tokio::test]
async fn nonsense_instead_of_a_request_ends_the_connection() {
    let siege = Siege::new().await;
    let huge = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    for (what, bytes, expected) in [
        ("garbage", vec![0xff; 100], "frame is too large"),
        ("oversized", huge.to_vec(), "frame is too large"),
        (
            "truncated",
            framed(b"\x05hello")[..8].to_vec(),
            "stream ends after 4 of 6 bytes",
        ),
        (
            "undecodable",
            framed(&[0xff; 10]),
            "frame holds no such message",
        ),
        (
            "a length that lies",
            framed(&[252, 0xff, 0xff, 0xff, 0x7f]),
            "frame holds no such",
        ),
        (
            "a hello again",
            hello_of(&version::PROGRAM.repeat(10)),
            "frame holds no such message",
        ),
    ] {
        let quic = silent(&siege.enemy, siege.running.addr).await;
        let mut welcome = throw(&quic, &hello()).await;
        welcome.read_to_end(1_000).await.unwrap();
        let _receive = throw(&quic, &bytes).await;
        let reason = reason(&quic).await;
        assert!(reason.contains(expected), "{what}: {reason}");
        siege.holds().await;
    }
}

#[tokio::test]
async fn datagrams_that_are_no_quic_do_no_harm() {
    let siege = Siege::new().await;
    let socket = UdpSocket::bind(localhost()).await.unwrap();
    let mut state = 1_u64;
    for number in 0_usize..5_000 {
        let length = number % 1_400;
        let mut datagram: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(length)
        .collect();
        // Every other one starts like a first datagram of QUIC version 1.
        if number % 2 == 0 && 5 < length {
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, siege.running.addr).await.unwrap();
    }
    siege.holds().await;
}

#[tokio::test]
async fn replayed_datagrams_are_not_heard_twice() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let relay = Relay::to(running.addr).await;
    let connection = client.connect(relay.addr, Role::Coordinator).await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(ask(&connection, text).await.unwrap(), text);
        assert!(4 < relay.replay().await);
    }
    assert_eq!(ask(&connection, "four").await.unwrap(), "four");
    connection.close("done");
    running.joined().await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "four") {
        if let Event::Heard(text) = running.events.recv().await.unwrap() {
            heard.push(text);
        }
    }
    assert_eq!(heard, ["one", "two", "three", "four"]);
    assert!(
        running.events.try_recv().is_err(),
        "something was heard twice"
    );
}

#[tokio::test]
async fn a_client_that_goes_without_a_word_leaves_the_server_serving() {
    let siege = Siege::new().await;
    for _visit in 0..20 {
        let quic = silent(&siege.enemy, siege.running.addr).await;
        let (mut send, _receive) = quic.open_bi().await.unwrap();
        send.write_all(&hello()[..6]).await.unwrap();
        drop(quic);
    }
    siege.holds().await;
}
