//! The numbers of QUIC: windows, timers, sockets. Each says why it is what it is.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::rand;
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use crate::{
    congestion::{self, Congestion},
    datagrams::Datagrams,
};

/// Four keep-alives: three may be lost before a side gives the other up. Well before leases end (20 s):
/// who is silent is gone, and gets no job, by the time that its jobs are given to others.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(12);
/// Often enough that middleboxes, which forget UDP flows after 30 seconds, remember ours.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// What a stranger may make this side hold before it is known who they are: one Hello.
const STRANGER_WINDOW_BYTES: u32 = 64 * 1024;
/// What a sender keeps until it is acknowledged: 10 Gbit/s over 3 ms, 1 Gbit/s over 30 ms. With 8 MiB, 32
/// readers of chunks of 2 MiB, half of them stuck, made a cache hold 561 MiB.
const SEND_WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// The first flight. The default (14,720 bytes) takes six round trips to grow to a chunk of 512 KiB;
/// pacing spreads this over the round trip, so that short queues bear it.
const FIRST_FLIGHT_BYTES: u64 = 256 * 1024;
/// What the kernel may hold of arrived or unsent datagrams: 4 ms of 10 Gbit/s, against the 0.2 ms of
/// Linux's default (208 KiB). The kernel grants as much as `net.core.rmem_max` and `wmem_max` say.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Enough that no two connections of an endpoint share an id.
const CONNECTION_ID_BYTES: usize = 8;

/// What may be in flight towards a reader, and so the most that others can make it hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Windows {
    /// Of one stream, in bytes.
    pub stream: u32,
    /// Of all streams of a connection, in bytes.
    pub connection: u32,
}

impl Default for Windows {
    /// One stream can fill 10 Gbit/s over 6 ms, or 1.6 Gbit/s over 40 ms; four of them fill a connection.
    fn default() -> Self {
        Self {
            stream: 8 * 1024 * 1024,
            connection: 32 * 1024 * 1024,
        }
    }
}

/// The part that both sides have in common.
fn common(datagrams: Datagrams, congestion: Congestion, windows: Windows) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("12 seconds are below 2^62 ms");
    let mut acknowledge = AckFrequencyConfig::default();
    acknowledge
        .ack_eliciting_threshold(VarInt::from_u32(datagrams.unacknowledged_max))
        .max_ack_delay(Some(datagrams.acknowledge_within));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(datagrams.bytes());
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(SEND_WINDOW_BYTES)
        .ack_frequency_config(Some(acknowledge))
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(datagrams.go_together)
        .congestion_controller_factory(congestion::factory(congestion, FIRST_FLIGHT_BYTES))
        // Neither unidirectional streams nor datagrams are spoken here.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// What a client says to a server: it takes no streams, since only clients open them.
pub(crate) fn client_transport(
    datagrams: Datagrams,
    congestion: Congestion,
) -> Arc<TransportConfig> {
    let mut config = common(datagrams, congestion, Windows::default());
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// What a server says to a stranger: one stream, for a Hello. [`admit`] allows more.
pub(crate) fn server_transport(
    datagrams: Datagrams,
    congestion: Congestion,
    windows: Windows,
) -> Arc<TransportConfig> {
    let mut config = common(datagrams, congestion, windows);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
    Arc::new(config)
}

/// Allows a client that is no stranger any more what is due to it.
pub(crate) fn admit(connection: &quinn::Connection, streams: u32, windows: Windows) {
    connection.set_receive_window(VarInt::from_u32(windows.connection));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
}

/// The datagrams that an endpoint takes, and the ids that it gives out.
pub(crate) fn endpoint(
    mut config: EndpointConfig,
    datagrams: Datagrams,
    ids: Ids,
) -> EndpointConfig {
    config
        .max_udp_payload_size(datagrams.bytes())
        .expect("the size is over the 1,200 of QUIC")
        .cid_generator(move || Box::new(ids));
    config
}

/// Connection ids that say nothing but which endpoint of a port they are for. quinn's own know those that it
/// has given out in this life; with these an endpoint also answers those of a life before, with a reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ids {
    /// Which endpoint, from zero.
    pub(crate) index: u8,
    /// How many there are on the port, at least one.
    pub(crate) of: u8,
}

impl Ids {
    /// Of an endpoint that has its port alone.
    pub(crate) const ALONE: Self = Self { index: 0, of: 1 };

    /// The first byte of an id, made of a random one: what it leaves when it is divided by the number of
    /// endpoints is the endpoint's index.
    const fn first_byte(self, random: u8) -> u8 {
        let start = random - random % self.of;
        match start.checked_add(self.index) {
            Some(byte) => byte,
            None => start - self.of + self.index,
        }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        rand::fill(&mut bytes).expect("the system gives random bytes");
        bytes[0] = self.first_byte(bytes[0]);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A UDP socket at `address`, with the buffers that the kernel grants.
pub(crate) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    bound(open(address)?, address)
}

/// The same, at an address that others of this user's sockets have too, if all of them share it.
pub(crate) fn shared_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    bound(socket, address)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
}

fn bound(socket: Socket, address: SocketAddr) -> io::Result<UdpSocket> {
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // `[::]` is everywhere, IPv4 included.
        socket.set_only_v6(false)?;
    }
    // Less than asked for is slower, and no reason not to start.
    let receive = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let send = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    debug!(
        %address,
        asked = SOCKET_BUFFER_BYTES,
        receive = receive.and_then(|()| socket.recv_buffer_size()).unwrap_or(0),
        send = send.and_then(|()| socket.send_buffer_size()).unwrap_or(0),
        "socket opened"
    );
    Ok(socket.into())
}

/// A socket from which every address can be reached: of both families where the system has IPv6.
pub(crate) fn socket_to_anywhere() -> io::Result<UdpSocket> {
    socket((Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_no_ipv6| socket((std::net::Ipv4Addr::UNSPECIFIED, 0).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_names_its_endpoint_and_what_is_random_stays_so() {
        for of in 1..=16 {
            for index in 0..of {
                let ids = Ids { index, of };
                let bytes: Vec<u8> = (0..=u8::MAX).map(|random| ids.first_byte(random)).collect();
                assert!(bytes.iter().all(|byte| byte % of == index), "{ids:?}");
                let distinct: std::collections::BTreeSet<_> = bytes.iter().collect();
                assert!(256 / usize::from(of) <= distinct.len(), "{ids:?}");
            }
        }
    }
}
