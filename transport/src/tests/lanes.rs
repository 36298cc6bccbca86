//! Lanes: order, room, ends.

use tokio::time::timeout;

use super::*;
use crate::{Lane, StreamError};

const LANE: Lane = Lane {
    messages_max: 4,
    bytes_max: 64 * 1024,
};

/// Two ends of a stream, with what keeps them up.
struct Ends {
    there: Stream,
    here: Stream,
    connection: Connection,
    _others: (Connection, Server, Client),
}

impl Ends {
    async fn new() -> Self {
        let farm = Farm::new();
        let server = farm.server(Role::Cache);
        let client = farm.client(Role::Worker);
        let accept = async {
            let arriving = server.accept().await.unwrap();
            arriving.greet().await.unwrap().welcome(None).await.unwrap()
        };
        let (there, here) = tokio::join!(client.connect(server.local_addr(), Role::Cache), accept);
        let (connection, other) = (there.unwrap(), here);
        let mut there = connection.open().await.unwrap();
        there.send.message(&"begin").await.unwrap();
        let mut here = other.accept().await.unwrap();
        here.receive.message::<String>().await.unwrap();
        Self {
            there,
            here,
            connection,
            _others: (other, server, client),
        }
    }
}

#[tokio::test]
async fn messages_come_in_order_both_ways_and_the_end_after_the_last() {
    let ends = Ends::new().await;
    let (numbers, to_there) = mpsc::channel::<u32>(1);
    let (texts, to_here) = mpsc::channel::<String>(1);
    let (from_here, mut arrived_here) = mpsc::channel::<String>(1);
    let (from_there, mut arrived_there) = mpsc::channel::<u32>(1);
    let says_numbers = async move {
        for number in 0..100 {
            numbers.send(number).await.unwrap();
        }
    };
    let says_texts = async move {
        for number in 0..50 {
            texts.send(number.to_string()).await.unwrap();
        }
    };
    let hears_numbers = async {
        for expected in 0..100 {
            assert_eq!(arrived_there.recv().await, Some(expected));
        }
        assert_eq!(arrived_there.recv().await, None);
    };
    let hears_texts = async {
        for expected in 0..50 {
            assert_eq!(arrived_here.recv().await, Some(expected.to_string()));
        }
        assert_eq!(arrived_here.recv().await, None);
    };
    let (one, other, ..) = tokio::join!(
        LANE.carry(ends.here, to_there, from_here),
        LANE.carry(ends.there, to_here, from_there),
        says_numbers,
        says_texts,
        hears_numbers,
        hears_texts,
    );
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn who_does_not_take_messages_stops_the_other_side_at_the_limit_and_hears_no_less() {
    // One waits at each of the two queues.
    const ROOM: u32 = LANE.messages_max + 2;
    let ends = Ends::new().await;
    let (sender, to_there) = mpsc::channel::<u32>(1);
    let (_silent, to_here) = mpsc::channel::<String>(1);
    let (from_here, mut heard) = mpsc::channel::<String>(1);
    let (from_there, mut arrived) = mpsc::channel::<u32>(1);
    let sends = async {
        for number in 0..ROOM {
            sender.send(number).await.unwrap();
        }
        let more = timeout(Duration::from_millis(300), sender.send(ROOM)).await;
        assert!(more.is_err(), "nobody has taken one");
        for expected in 0..ROOM {
            assert_eq!(arrived.recv().await, Some(expected));
        }
        assert!(heard.try_recv().is_err());
    };
    tokio::select! {
        () = sends => {}
        _ = LANE.carry(ends.here, to_there, from_here) => panic!("one end has ended"),
        _ = LANE.carry(ends.there, to_here, from_there) => panic!("the other end has ended"),
    }
}

#[tokio::test]
async fn what_nobody_takes_holds_no_lane_whose_other_side_is_gone() {
    use protocol::message::lane::OnLane;
    let ends = Ends::new().await;
    let (_silent, nothing) = mpsc::channel::<u32>(1);
    let (incoming, _not_taken) = mpsc::channel::<u32>(1);
    let mut there = ends.there;
    for number in 0..LANE.messages_max {
        there.send.message(&OnLane::Passed(number)).await.unwrap();
    }
    drop(there);
    // Some times as long as it may take.
    let patience = Duration::from_secs(30);
    let carried = timeout(patience, LANE.carry(ends.here, nothing, incoming));
    // Whether that is an end or a break does not matter.
    let _ended = carried.await.unwrap();
}

#[tokio::test]
async fn what_came_from_a_side_that_is_gone_is_handed_on() {
    use protocol::message::lane::OnLane;
    let ends = Ends::new().await;
    let (_silent, nothing) = mpsc::channel::<u32>(1);
    let (incoming, mut taken) = mpsc::channel::<u32>(1);
    let mut there = ends.there;
    for number in 0..LANE.messages_max {
        there.send.message(&OnLane::Passed(number)).await.unwrap();
    }
    there.send.finish();
    let takes = async {
        for expected in 0..LANE.messages_max {
            assert_eq!(taken.recv().await, Some(expected));
        }
        assert_eq!(taken.recv().await, None);
    };
    let (carried, ()) = tokio::join!(LANE.carry(ends.here, nothing, incoming), takes);
    carried.unwrap();
}

#[tokio::test]
async fn who_sends_more_than_there_is_room_for_loses_its_connection() {
    use protocol::message::lane::OnLane;
    let ends = Ends::new().await;
    let (_silent, nothing) = mpsc::channel::<u32>(1);
    let (incoming, _not_taken) = mpsc::channel::<u32>(1);
    let mut there = ends.there;
    let floods = async {
        for number in 0..2 * LANE.messages_max {
            let _until_it_breaks = there.send.message(&OnLane::Passed(number)).await;
        }
        std::future::pending::<()>().await;
    };
    let carried = tokio::select! {
        carried = LANE.carry(ends.here, nothing, incoming) => carried,
        () = floods => unreachable!("it waits"),
    };
    assert!(matches!(carried, Err(StreamError::Surplus)), "{carried:?}");
    ends.connection.closed().await;
}
