//! Several endpoints on one port: each has a socket and a task of its own that takes datagrams in, which is
//! what a server with many connections runs out of first.
//!
//! The connection id names the endpoint: its first byte, modulo the number of endpoints. The kernel picks the
//! socket by it (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)), not by the address, so that a client that moves to
//! another network finds the endpoint that knows it. The ids of first datagrams are the client's own, any
//! endpoint takes these, and answers with an id of its own (RFC 9000, 7.2).
//!
//! A kernel may gather datagrams of one pair of addresses before it picks (GRO), so two connections to such a
//! server never have the same two addresses: [`Client`](crate::Client) gives each a port.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
};

use futures_util::future::select_all;
use nix::{
    libc::{sock_filter, sock_fprog},
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig};

use crate::{
    config::{self, Ids},
    socket::Tokio,
};

/// How many endpoints there may be: more drivers than a large machine has cores to spare for them.
pub(crate) const ENDPOINTS_MAX: u8 = 16;

/// The endpoints of a server.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    local: SocketAddr,
}

impl Endpoints {
    /// So many endpoints on `listen`, at least one; port 0 means any that is free. That nobody else of this user
    /// takes the port in the moment between the look whether it is free and its being shared is not ensured. `configure` makes each one's
    /// configuration from its ids.
    pub(crate) fn bind(
        listen: SocketAddr,
        count: u8,
        configure: impl Fn(Ids) -> EndpointConfig,
        server: &ServerConfig,
    ) -> io::Result<Self> {
        let count = count.clamp(1, ENDPOINTS_MAX);
        // Who shares a port does not notice that somebody else has it.
        let first = config::socket(listen)?;
        let local = first.local_addr()?;
        let sockets = match count {
            1 => vec![first],
            _ => {
                drop(first);
                shared_sockets(local, count)?
            }
        };
        let endpoints = sockets.into_iter().zip(0..).map(|(socket, index)| {
            let config = configure(Ids { index, of: count });
            Endpoint::new(config, Some(server.clone()), socket, Arc::new(Tokio))
        });
        Ok(Self {
            all: endpoints.collect::<io::Result<_>>()?,
            local,
        })
    }

    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection that arrives at any of them; `None` after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        let accepting = self.all.iter().map(|endpoint| Box::pin(endpoint.accept()));
        let (incoming, _first, _others) = select_all(accepting).await;
        incoming
    }

    /// How many connections each has.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> Vec<usize> {
        let all = self.all.iter();
        all.map(Endpoint::open_connections).collect()
    }

    /// Greets from the next connection on as `server` says.
    pub(crate) fn configure(&self, server: &ServerConfig) {
        for endpoint in &self.all {
            endpoint.set_server_config(Some(server.clone()));
        }
    }

    pub(crate) fn close(&self, code: quinn::VarInt, reason: &[u8]) {
        for endpoint in &self.all {
            endpoint.close(code, reason);
        }
    }

    pub(crate) async fn wait_idle(&self) {
        for endpoint in &self.all {
            endpoint.wait_idle().await;
        }
    }
}

/// Sockets that share a port, each with the datagrams whose ids name it.
fn shared_sockets(local: SocketAddr, count: u8) -> io::Result<Vec<UdpSocket>> {
    let first = config::shared_socket(local)?;
    // Before there are others: no datagram goes where it does not belong.
    pick_by_id(&first, count)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(config::shared_socket(local)?);
    }
    Ok(sockets)
}

/// Has the kernel pick one of `count` sockets by the first byte of the id that a datagram is for: the second
/// byte of a short header, the seventh of a long one (RFC 8999, 5). The sockets count in the order in which
/// they were bound.
fn pick_by_id(socket: &impl AsFd, count: u8) -> io::Result<()> {
    // The instructions of BPF, as linux/bpf_common.h numbers them.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const JUMP: u16 = 0x05;
    const MODULO: u16 = 0x94;
    const RETURN: u16 = 0x16;
    const LONG_HEADER: u32 = 0x80;
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    let mut steps = [
        step(LOAD_BYTE, 0, 0),
        step(JUMP_IF_SET, 2, LONG_HEADER),
        step(LOAD_BYTE, 0, 1),
        step(JUMP, 0, 1),
        step(LOAD_BYTE, 0, 6),
        step(MODULO, 0, count.into()),
        step(RETURN, 0, 0),
    ];
    let program = sock_fprog {
        len: u16::try_from(steps.len()).expect("seven fit"),
        filter: steps.as_mut_ptr(),
    };
    setsockopt(socket, AttachReusePortCbpf, &program).map_err(io::Error::from)
}
