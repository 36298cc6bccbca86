//! Real sockets on loopback.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{task::yield_now, time::timeout};

use super::*;

const SIZE: usize = 1_452;
/// Loopback takes microseconds.
const LIMIT: Duration = Duration::from_secs(10);

async fn socket() -> (Arc<Socket>, SocketAddr) {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let socket = Socket::new(socket).unwrap();
    // The runtime has to hear of it first.
    socket.io.writable().await.unwrap();
    (socket, address)
}

/// So many datagrams, each of its number.
fn numbered(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(|number| [number; SIZE]).collect()
}

fn to(address: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit {
        destination: address,
        ecn: None,
        contents,
        segment_size: (SIZE < contents.len()).then_some(SIZE),
        src_ip: None,
    }
}

/// The numbers of the datagrams that arrive, until there are so many; for each call that sent some, those of it.
async fn arrived(socket: &Socket, count: usize) -> Vec<Vec<u8>> {
    let mut calls: Vec<Vec<u8>> = Vec::new();
    while calls.iter().map(Vec::len).sum::<usize>() < count {
        let mut memory = vec![vec![0; 1 << 16]; 4];
        let mut metas = [RecvMeta::default(); 4];
        let received = poll_fn(|context| {
            let mut buffers: Vec<_> = memory.iter_mut().map(|one| IoSliceMut::new(one)).collect();
            socket.poll_recv(context, &mut buffers, &mut metas)
        });
        let received = timeout(LIMIT, received).await.expect("it arrives").unwrap();
        for (memory, meta) in memory.iter().zip(metas).take(received) {
            let datagrams = memory[..meta.len].chunks(meta.stride);
            calls.push(datagrams.map(|datagram| datagram[0]).collect());
        }
    }
    calls
}

#[tokio::test]
async fn tens_that_follow_each_other_go_in_one_call_and_in_order() {
    let ((sender, _), (receiver, address)) = (socket().await, socket().await);
    for start in [0, 10, 20] {
        let ten = numbered(start..start + 10);
        sender.try_send(&to(address, &ten)).unwrap();
    }
    sender.try_send(&to(address, &numbered(30..31))).unwrap();
    let calls = arrived(&receiver, 31).await;
    assert_eq!(calls.concat(), (0..31).collect::<Vec<u8>>());
    assert_eq!(
        calls.len(),
        1,
        "where the system cuts and gathers: {calls:?}"
    );
}

#[tokio::test]
async fn ten_behind_which_nothing_comes_go_by_themselves() {
    let ((sender, _), (receiver, address)) = (socket().await, socket().await);
    for start in [0, 10] {
        let ten = numbered(start..start + 10);
        sender.try_send(&to(address, &ten)).unwrap();
        assert_eq!(
            arrived(&receiver, 10).await.concat(),
            (start..start + 10).collect::<Vec<u8>>()
        );
    }
}

#[tokio::test]
async fn what_is_for_somebody_else_goes_behind_what_came_first() {
    let ((sender, _), (one, first), (other, second)) =
        (socket().await, socket().await, socket().await);
    for (address, numbers) in [(first, 0..10), (second, 10..20), (first, 20..30)] {
        sender.try_send(&to(address, &numbered(numbers))).unwrap();
    }
    let expected: Vec<u8> = (0..10).chain(20..30).collect();
    assert_eq!(arrived(&one, 20).await.concat(), expected);
    assert_eq!(
        arrived(&other, 10).await.concat(),
        (10..20).collect::<Vec<u8>>()
    );
}

#[tokio::test]
async fn what_a_full_socket_does_not_take_is_held_and_goes_when_it_takes_more() {
    let ((sender, back), (receiver, address)) = (socket().await, socket().await);
    sender.try_send(&to(address, &numbered(0..10))).unwrap();
    // As the runtime has it when the system has refused something.
    let refused = sender.io.try_io(Interest::WRITABLE, || {
        Err::<(), _>(ErrorKind::WouldBlock.into())
    });
    assert!(refused.is_err());
    let tail = &numbered(10..11)[..700];
    sender.try_send(&to(address, tail)).unwrap();
    for next in [numbered(11..21), numbered(11..12)] {
        let refused = sender.try_send(&to(address, &next)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    }
    // Of a socket to which something comes the system tells all that it is ready for.
    receiver.try_send(&to(back, b"anything")).unwrap();
    let mut poller = Arc::clone(&sender).create_io_poller();
    let writable = poll_fn(|context| poller.as_mut().poll_writable(context));
    timeout(LIMIT, writable)
        .await
        .expect("it takes more")
        .unwrap();
    assert_eq!(
        arrived(&receiver, 11).await.concat(),
        (0..11).collect::<Vec<u8>>()
    );
    sender.try_send(&to(address, &numbered(11..12))).unwrap();
    assert_eq!(arrived(&receiver, 1).await.concat(), [11]);
}

#[tokio::test]
async fn the_task_that_sends_ends_with_the_socket() {
    let (socket, _) = socket().await;
    let waits = Arc::downgrade(&socket.waits);
    drop(socket);
    let gone = async {
        while waits.strong_count() != 0 {
            yield_now().await;
        }
    };
    timeout(LIMIT, gone).await.expect("it ends");
}
