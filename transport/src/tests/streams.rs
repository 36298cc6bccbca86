//! Requests, messages, bytes, and what happens when one side stops in the middle.

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::*;
use crate::{Congestion, Datagrams, StreamError, Windows};

/// Two ends of a connection; the server's is not served by anybody.
struct Pair {
    there: Connection,
    here: Connection,
    _server: Server,
    _client: Client,
}

impl Pair {
    async fn new() -> Self {
        Self::within(ServerLimits::default()).await
    }

    async fn with(datagrams: Datagrams) -> Self {
        Self::within(ServerLimits {
            datagrams,
            ..ServerLimits::default()
        })
        .await
    }

    async fn within(limits: ServerLimits) -> Self {
        let farm = Farm::new();
        let server = farm.server_within(Role::Cache, limits);
        let worker = farm.member(Role::Worker);
        let client = Client::with_datagrams(&worker, limits.datagrams).unwrap();
        let accept = async {
            let arriving = server.accept().await.unwrap();
            arriving.greet().await.unwrap().welcome(None).await.unwrap()
        };
        let (there, here) = tokio::join!(client.connect(server.local_addr(), Role::Cache), accept);
        Self {
            there: there.unwrap(),
            here,
            _server: server,
            _client: client,
        }
    }

    /// A stream with a first message on it, since a stream shows when something is sent.
    async fn stream(&self) -> (Stream, Stream) {
        let mut there = self.there.open().await.unwrap();
        there.send.message(&"begin").await.unwrap();
        let mut here = self.here.accept().await.unwrap();
        let begin: Option<String> = here.receive.message().await.unwrap();
        assert_eq!(begin.as_deref(), Some("begin"));
        (there, here)
    }
}

/// Bytes of which no two neighbours are alike.
fn pattern(length: usize) -> Bytes {
    let mut byte = 0_u8;
    std::iter::repeat_with(|| {
        byte = byte.wrapping_mul(5).wrapping_add(3);
        byte
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn requests_are_answered_each_on_its_stream() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let running = Running::start(farm, server);
    let connection = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..500 {
        let connection = connection.clone();
        tasks.spawn(async move {
            let text = number.to_string();
            assert_eq!(ask(&connection, &text).await.unwrap(), text);
        });
    }
    assert_eq!(tasks.join_all().await.len(), 500);
    let refusal = ask(&connection, "no").await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidArgument);
    assert_eq!(ask(&connection, "yes").await.unwrap(), "yes");
}

#[tokio::test]
async fn bodies_arrive_whole_between_messages() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let body = pattern(5_000_000);
    let sent = body.clone();
    let send = async {
        there.send.message(&sent.len()).await.unwrap();
        there.send.bytes(sent.clone()).await.unwrap();
        there.send.message(&"and again").await.unwrap();
        there.send.bytes(sent).await.unwrap();
        there.send.finish();
    };
    let receive = async {
        let length: Option<usize> = here.receive.message().await.unwrap();
        assert_eq!(length, Some(body.len()));
        assert_eq!(here.receive.bytes(0).await.unwrap(), Bytes::new());
        assert_eq!(
            here.receive.bytes(1_000_000).await.unwrap(),
            body.slice(..1_000_000)
        );
        let mut target = BytesMut::new();
        here.receive.append(&mut target, 1_000_000).await.unwrap();
        assert_eq!(target, body.slice(1_000_000..2_000_000));
        let mut rest = Vec::new();
        while rest.len() < 3_000_000 {
            let piece = here.receive.piece(3_000_000 - rest.len()).await.unwrap();
            rest.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(rest, body.slice(2_000_000..));
        let again: Option<String> = here.receive.message().await.unwrap();
        assert_eq!(again.as_deref(), Some("and again"));
        assert_eq!(here.receive.bytes(body.len()).await.unwrap(), body);
        here.receive.end().await.unwrap();
        assert!(here.receive.message::<String>().await.unwrap().is_none());
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn datagrams_grow_as_large_as_both_sides_allow_together_and_alone() {
    for (bytes_max, go_together) in [(1_452, true), (6_500, true), (9_000, false)] {
        let datagrams = Datagrams {
            bytes_max,
            go_together,
            ..Datagrams::default()
        };
        let pair = Pair::with(datagrams).await;
        let (mut there, mut here) = pair.stream().await;
        let received = || (pair.there.datagram_bytes().1, pair.there.datagrams().1);
        let body = pattern(4_000_000);
        let mut size = 0;
        // What the path carries is found step by step.
        for _round in 0..100 {
            let before = received();
            let (sent, arrived) = tokio::join!(
                here.send.bytes(body.clone()),
                there.receive.bytes(body.len())
            );
            sent.unwrap();
            assert_eq!(arrived.unwrap(), body);
            let after = received();
            size = (after.0 - before.0) / (after.1 - before.1);
            if u64::from(bytes_max) * 3 / 4 < size {
                break;
            }
        }
        let nearly = u64::from(bytes_max) * 3 / 4..=u64::from(bytes_max);
        assert!(nearly.contains(&size), "{size} of {datagrams:?}");
    }
}

#[tokio::test]
async fn a_receiver_acknowledges_as_rarely_as_the_sender_asks() {
    const SENT: u64 = 100;
    for (unacknowledged_max, acknowledged) in [(1, 40..=110), (10, 5..=25)] {
        let datagrams = Datagrams {
            unacknowledged_max,
            acknowledge_within: Duration::from_secs(1),
            ..Datagrams::default()
        };
        let pair = Pair::with(datagrams).await;
        let (mut there, mut here) = pair.stream().await;
        let ways = [
            (&mut here.send, &mut there.receive, &pair.there),
            (&mut there.send, &mut here.receive, &pair.here),
        ];
        for (send, receive, receiver) in ways {
            // What the sender asks for goes with the first.
            for _warm in 0..20 {
                send.message(&1).await.unwrap();
                assert_eq!(receive.message().await.unwrap(), Some(1));
            }
            let before = receiver.datagrams().0;
            for number in 0..SENT {
                send.message(&number).await.unwrap();
                assert_eq!(receive.message().await.unwrap(), Some(number));
            }
            let after = receiver.datagrams().0;
            assert!(acknowledged.contains(&(after - before)), "{datagrams:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_starts_with_the_first_flight_that_its_controller_is_given() {
    for congestion in [Congestion::ByPath, Congestion::Cubic] {
        let limits = ServerLimits {
            congestion,
            ..ServerLimits::default()
        };
        let pair = Pair::within(limits).await;
        // quinn's own is 14,720 bytes.
        for side in [&pair.here, &pair.there] {
            let window = side.congestion_window();
            assert!(200_000 < window, "{window} bytes with {congestion:?}");
        }
    }
}

#[tokio::test]
async fn reading_a_message_can_be_interrupted() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let text = "x".repeat(1_000);
    let body = protocol::codec::encode(&text).unwrap();
    let frame = [&protocol::frame::header(&body)[..], &body[..]].concat();
    let mut waits = 0;
    for piece in frame.chunks(100) {
        there
            .send
            .bytes(Bytes::copy_from_slice(piece))
            .await
            .unwrap();
        // The piece is there, the message is not: whoever reads is interrupted.
        let reading = here.receive.message::<String>();
        match timeout(Duration::from_millis(20), reading).await {
            Err(_interrupted) => waits += 1,
            Ok(message) => assert_eq!(message.unwrap(), Some(text.clone())),
        }
    }
    assert_eq!(waits, frame.len().div_ceil(100) - 1);
}

#[tokio::test]
async fn a_sender_waits_for_its_reader() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let piece = pattern(1024 * 1024);
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_secs(1), there.send.bytes(piece.clone())).await {
        written.unwrap();
        sent += 1;
        assert!(sent < 100, "nothing holds the sender back");
    }
    // A stream's window at the reader is 8 MiB, and a part of it is used.
    assert_eq!(sent, 7, "MiB went out unread");
    // The write was interrupted, so what follows cannot be a whole body.
    assert!(matches!(
        there.send.bytes(piece).await,
        Err(StreamError::Finished)
    ));
    drop(there);
    let read = async {
        loop {
            match here.receive.piece(1024 * 1024).await {
                Ok(Some(_piece)) => {}
                Ok(None) => panic!("what was interrupted looks whole"),
                Err(error) => return error,
            }
        }
    };
    let error = timeout(Duration::from_secs(10), read).await.unwrap();
    assert!(matches!(error, StreamError::Reset), "{error}");
    // And nothing else on the connection suffers.
    pair.stream().await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_truncated_and_the_connection_goes_on() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    there.send.bytes(pattern(70)).await.unwrap();
    drop(there);
    let error = here.receive.bytes(100).await.unwrap_err();
    let (expected, received) = (100, 70);
    assert!(
        matches!(error, StreamError::Truncated { expected: e, received: r } if (e, r) == (expected, received)),
        "{error}"
    );
    pair.stream().await;
}

#[tokio::test]
async fn a_stream_without_an_answer_is_no_answer() {
    let pair = Pair::new().await;
    let mut there = pair.there.open().await.unwrap();
    let (answer, _dropped) = tokio::join!(there.request::<_, String>(&"hello"), async {
        pair.here.accept().await.map(drop)
    });
    let error = answer.unwrap_err();
    assert!(matches!(error, StreamError::NoAnswer), "{error}");
}

#[tokio::test]
async fn a_refusal_arrives_though_the_request_was_not_read() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    here.receive.stop();
    let refusal = Refusal::new(RefusalCode::ResourceExhausted, "the disk is full");
    let answer: Result<String, Refusal> = Err(refusal.clone());
    here.send.message(&answer).await.unwrap();
    there.send.stopped().await;
    let answer: Result<String, Refusal> = there.request(&"x".repeat(1_000_000)).await.unwrap();
    assert_eq!(answer, Err(refusal));
}

#[tokio::test]
async fn a_message_over_a_frame_is_not_sent() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let error = there
        .send
        .message(&"x".repeat(5_000_000))
        .await
        .unwrap_err();
    assert!(matches!(error, StreamError::Encode { .. }), "{error}");
    there.send.message(&"shorter").await.unwrap();
    let text: Option<String> = here.receive.message().await.unwrap();
    assert_eq!(text.as_deref(), Some("shorter"));
}

#[tokio::test]
async fn a_client_opens_as_many_streams_as_it_may() {
    let limits = ServerLimits {
        streams: 4,
        ..ServerLimits::default()
    };
    let pair = Pair::within(limits).await;
    let mut streams = Vec::new();
    for _stream in 0..4 {
        streams.push(pair.stream().await);
    }
    let fifth = timeout(Duration::from_millis(200), pair.there.open()).await;
    assert!(fifth.is_err(), "a fifth stream was opened");
    streams.pop();
    let fifth = timeout(Duration::from_secs(10), pair.there.open()).await;
    fifth.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_read_is_sent_no_more_than_its_windows() {
    let windows = Windows {
        stream: 256 * 1024,
        connection: 1024 * 1024,
    };
    let limits = ServerLimits {
        windows,
        ..ServerLimits::default()
    };
    let pair = Pair::within(limits).await;
    let body = pattern(600_000);
    for (streams, window) in [(1, windows.stream), (6, windows.connection)] {
        let before = pair.here.datagram_bytes().1;
        let arrived = || pair.here.datagram_bytes().1 - before;
        let over = async |bytes: u32| {
            while arrived() < u64::from(bytes) {
                tokio::time::sleep(Duration::from_millis(5)).await; // the poll interval
            }
        };
        let (mut sending, mut reading, mut unread) = (JoinSet::new(), JoinSet::new(), Vec::new());
        // A stream that is opened when the window is full is not heard of.
        let mut opened = Vec::new();
        for _ in 0..streams {
            opened.push(pair.stream().await);
        }
        for (mut there, here) in opened {
            let body = body.clone();
            sending.spawn(async move { there.send.bytes(body).await.map(|()| there) });
            unread.push(here);
        }
        // Of what was read last, up to an eighth of the window is not announced again.
        over(window / 8 * 7).await;
        let too_much = timeout(Duration::from_millis(300), over(window / 2 * 3)).await;
        assert!(too_much.is_err(), "{} bytes have arrived unread", arrived());
        // All at once: what is read of one would go to the others.
        for mut here in unread {
            let body = body.clone();
            reading.spawn(async move {
                assert_eq!(here.receive.bytes(body.len()).await.unwrap(), body);
            });
        }
        while let Some(read) = reading.join_next().await {
            read.unwrap();
        }
        while let Some(sent) = sending.join_next().await {
            sent.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn servers_open_no_streams() {
    let pair = Pair::new().await;
    let opened = timeout(Duration::from_millis(200), pair.here.open()).await;
    assert!(opened.is_err(), "the server has opened a stream");
}

#[tokio::test]
async fn what_is_announced_takes_no_memory_before_it_arrives() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let announced = u32::try_from(protocol::frame::FRAME_BYTES_MAX).unwrap();
    let header = Bytes::copy_from_slice(&announced.to_le_bytes());
    there.send.bytes(header).await.unwrap();
    let reading = timeout(Duration::from_millis(200), here.receive.message::<String>()).await;
    assert!(reading.is_err(), "there is no message");
    let reserved = here.receive.reserved();
    assert!(reserved <= 1024 * 1024, "{reserved} bytes are set aside");
}

#[tokio::test]
async fn a_message_goes_on_where_a_cancelled_read_has_left_it() {
    let pair = Pair::new().await;
    let (mut there, mut here) = pair.stream().await;
    let text = "a message that arrives in pieces";
    let message = protocol::codec::encode(&text).unwrap();
    let header = protocol::frame::header(&message);
    let wire = Bytes::from([&header[..], &message].concat());
    // In the header, behind it, in the message.
    for (from, to) in [(0, 2), (2, 4), (4, 9)] {
        there.send.bytes(wire.slice(from..to)).await.unwrap();
        let reading = timeout(Duration::from_millis(100), here.receive.message::<String>());
        assert!(reading.await.is_err(), "there is no message yet");
    }
    let rest = vec![
        wire.slice(9..20),
        wire.slice(20..),
        Bytes::from_static(b"body"),
    ];
    there.send.pieces(rest).await.unwrap();
    let read: Option<String> = here.receive.message().await.unwrap();
    assert_eq!(read.as_deref(), Some(text));
    assert_eq!(here.receive.bytes(4).await.unwrap(), "body");
    there.send.finish();
    here.receive.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_ready_when_something_of_it_has_come_and_loses_nothing_of_it() {
    let pair = Pair::new().await;
    let mut first = pair.there.open().await.unwrap();
    let mut second = pair.there.open().await.unwrap();
    second.send.message(&"second").await.unwrap();
    // The later one makes the earlier one known.
    let mut here = pair.here.accept().await.unwrap();
    assert!(!is_done(here.receive.ready()).await);
    first.send.message(&"first").await.unwrap();
    here.receive.ready().await.unwrap();
    here.receive.ready().await.unwrap();
    let said: Option<String> = here.receive.message().await.unwrap();
    assert_eq!(said.as_deref(), Some("first"));
    first.send.finish();
    here.receive.ready().await.unwrap();
    assert_eq!(here.receive.message::<String>().await.unwrap(), None);
}

#[tokio::test]
async fn what_is_large_goes_in_turns_for_each_name() {
    let pair = Pair::new().await;
    let red = pair.there.turn("red").await;
    assert!(!is_done(pair.there.turn("red")).await);
    assert!(is_done(pair.there.turn("blue")).await);
    drop(red);
    assert!(is_done(pair.there.turn("red")).await);
}

/// Whether it is done at once.
async fn is_done<T>(future: impl Future<Output = T>) -> bool {
    tokio::select! {
        biased;
        _ = future => true,
        () = std::future::ready(()) => false,
    }
}
