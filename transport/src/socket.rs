//! The UDP socket of an endpoint: quinn's, with fewer system calls.
//!
//! quinn hands over ten datagrams at a time, and would have each ten sent by a call of its own. Here as many as the
//! system takes go in one: ten are held until something else is sent, no more fit, or all tasks that were ready have had
//! their turn. And where fewer have arrived than there was room for, the system is not asked again before it says that
//! there are more.

mod held;

use std::{
    fmt,
    future::{Future, poll_fn},
    io::{self, ErrorKind, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Instant,
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket, sync::Notify, task::JoinSet};

use self::held::Held;

/// tokio, with these sockets.
#[derive(Debug)]
pub(crate) struct Tokio;

impl Runtime for Tokio {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Socket::new(socket)?)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    held: Mutex<Held>,
    /// Something is held that will not go by itself.
    waits: Arc<Notify>,
    /// Ends with the socket.
    _sending: JoinSet<()>,
}

impl Socket {
    /// A socket, and a task that sends what is held.
    fn new(socket: std::net::UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        let waits = Arc::new(Notify::new());
        Ok(Arc::new_cyclic(|this| {
            let mut sending = JoinSet::new();
            sending.spawn(send_later(Weak::clone(this), Arc::clone(&waits)));
            Self {
                io,
                state,
                held: Mutex::default(),
                waits,
                _sending: sending,
            }
        }))
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || {
            self.state.send((&self.io).into(), transmit)
        })
    }

    /// Sends what is held; it stays if the socket takes nothing.
    fn send_held(&self, held: &mut Held) -> io::Result<()> {
        let Some(all) = held.all() else {
            return Ok(());
        };
        let sent = self.send(&all);
        // quinn takes a datagram that cannot be sent for lost, too.
        if !is_full(&sent) {
            held.clear();
        }
        sent
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What is held changes in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a socket could not take what was to be sent, because the system has as much as it holds.
fn is_full(sent: &io::Result<()>) -> bool {
    matches!(sent, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Goes on when the tasks that are ready have had their turn. tokio's own way would wait for all that these bring
/// about, too, which may take milliseconds.
async fn behind_others() {
    let mut is_behind = false;
    let turn = poll_fn(|context| {
        if is_behind {
            return Poll::Ready(());
        }
        is_behind = true;
        context.waker().wake_by_ref();
        Poll::Pending
    });
    turn.await;
}

/// Sends what is held when all that was ready has had its turn: what quinn has more of is added by then.
async fn send_later(socket: Weak<Socket>, waits: Arc<Notify>) {
    loop {
        waits.notified().await;
        behind_others().await;
        let Some(socket) = socket.upgrade() else {
            return;
        };
        loop {
            let sent = socket.send_held(&mut socket.held());
            if !is_full(&sent) || socket.io.writable().await.is_err() {
                break;
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut held = self.held();
        if held.all().is_some() {
            if held.add(transmit) {
                if !held.waits_behind(transmit) && is_full(&self.send_held(&mut held)) {
                    self.waits.notify_one();
                }
                return Ok(());
            }
            // What came first goes first.
            let sent = self.send_held(&mut held);
            if is_full(&sent) {
                return sent;
            }
        }
        if held.begin(transmit) {
            self.waits.notify_one();
            return Ok(());
        }
        self.send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let room = buffers.len().min(metas.len());
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let mut last = None;
            let received = self.io.try_io(Interest::READABLE, || {
                let count = self.state.recv((&self.io).into(), buffers, metas)?;
                if room <= count {
                    return Ok(count);
                }
                // Nothing else was there. What has come since, or will, is told of again.
                last = Some(count);
                Err(ErrorKind::WouldBlock.into())
            });
            match (received, last) {
                (_, Some(count)) | (Ok(count), None) => return Poll::Ready(Ok(count)),
                // An endpoint that is told of an error ends, with all its connections. The system tells each once.
                (Err(_), None) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until a socket takes more; one for each connection, since a socket wakes each of those who wait.
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Writable>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            // Nearly always it does.
            let writable = self.socket.io.try_io(Interest::WRITABLE, || Ok(()));
            if writable.is_ok() {
                return Poll::Ready(Ok(()));
            }
        }
        let socket = Arc::clone(&self.socket);
        let wait = || -> Writable { Box::pin(async move { socket.io.writable().await }) };
        let waiting = self.waiting.get_or_insert_with(wait);
        let writable = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(writable)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
