//! A relay of datagrams between clients and a server, with a path between them that is slow, narrow or
//! loses something: what the network of a farm is like whose parts are far from each other.

mod link;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use self::link::{Fate, Link, LinkPlan};
use crate::wait;

/// How many clients one relay has; more are not heard.
const CLIENTS_MAX: usize = 256;
/// The largest datagram that there is, in bytes.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How often who waits for datagrams looks whether the relay ends.
const STOP_POLL: Duration = Duration::from_millis(50);

/// What the path is like.
#[derive(Clone, Debug, Default)]
pub struct RelayPlan {
    /// From clients to the server.
    pub up: LinkPlan,
    /// From the server to clients.
    pub down: LinkPlan,
    /// Where the chances come from.
    pub seed: u64,
}

impl RelayPlan {
    /// The same in both directions.
    pub fn both(link: LinkPlan, seed: u64) -> Self {
        Self {
            up: link.clone(),
            down: link,
            seed,
        }
    }
}

/// What went through in one direction, of one client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Passed {
    /// Datagrams that came.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that were lost on the way.
    pub lost: u64,
    /// Datagrams that found the queue full.
    pub dropped: u64,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where clients find the server.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    server: SocketAddr,
    started: Instant,
    up: Mutex<Link>,
    down: Mutex<Link>,
    /// What is on its way, the next to arrive first.
    travelling: Mutex<BinaryHeap<Reverse<Travelling>>>,
    changed: Condvar,
    passed: Mutex<BTreeMap<SocketAddr, (Passed, Passed)>>,
    is_ending: AtomicBool,
}

/// A datagram on its way.
#[derive(Debug)]
struct Travelling {
    arrives: Duration,
    /// Of two that arrive at once the one that came first goes first.
    number: u64,
    bytes: Vec<u8>,
    to: Destination,
}

#[derive(Debug)]
enum Destination {
    Server(Arc<UdpSocket>),
    Client(SocketAddr),
}

impl PartialEq for Travelling {
    fn eq(&self, other: &Self) -> bool {
        (self.arrives, self.number) == (other.arrives, other.number)
    }
}

impl Eq for Travelling {}

impl PartialOrd for Travelling {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Travelling {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrives, self.number).cmp(&(other.arrives, other.number))
    }
}

impl Relay {
    /// Starts a relay in front of `server`, on a free port of loopback.
    ///
    /// # Errors
    ///
    /// If there is no socket.
    pub fn start(server: SocketAddr, plan: RelayPlan) -> io::Result<Self> {
        let front = socket()?;
        let shared = Arc::new(Shared {
            server,
            started: wait::now(),
            up: Mutex::new(Link::new(plan.up, plan.seed)),
            down: Mutex::new(Link::new(plan.down, plan.seed ^ 1)),
            travelling: Mutex::default(),
            changed: Condvar::new(),
            passed: Mutex::default(),
            is_ending: AtomicBool::new(false),
            front,
        });
        let address = shared.front.local_addr()?;
        let (delivering, taking) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || delivering.deliver()),
            thread::spawn(move || taking.take_from_clients()),
        ];
        Ok(Self {
            address,
            shared,
            threads,
        })
    }

    /// What went through so far, for each client by its address: up, and down.
    pub fn passed(&self) -> BTreeMap<SocketAddr, (Passed, Passed)> {
        lock(&self.shared.passed).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// Takes what clients send; each client has a socket of its own towards the server.
    fn take_from_clients(self: &Arc<Self>) {
        let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut answering = Vec::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.is_ending.load(Ordering::SeqCst) {
            let Ok((length, client)) = self.front.recv_from(&mut buffer) else {
                continue;
            };
            let socket = match clients.get(&client) {
                Some(socket) => Arc::clone(socket),
                None if CLIENTS_MAX <= clients.len() => continue,
                None => {
                    let Ok(socket) = self.towards_server() else {
                        continue;
                    };
                    let (shared, from_server) = (Arc::clone(self), Arc::clone(&socket));
                    answering.push(thread::spawn(move || {
                        shared.take_from_server(&from_server, client);
                    }));
                    clients.insert(client, Arc::clone(&socket));
                    socket
                }
            };
            let fate = lock(&self.up).send(self.now(), length);
            let bytes = &buffer[..length];
            self.pass((client, true), fate, bytes, Destination::Server(socket));
        }
        for thread in answering {
            let _panicked = thread.join();
        }
    }

    fn towards_server(&self) -> io::Result<Arc<UdpSocket>> {
        let socket = socket()?;
        socket.connect(self.server)?;
        Ok(Arc::new(socket))
    }

    /// Takes what the server sends to one client.
    fn take_from_server(&self, socket: &UdpSocket, client: SocketAddr) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.is_ending.load(Ordering::SeqCst) {
            // An error is as good as nothing: the server may not be there yet, or no more.
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let fate = lock(&self.down).send(self.now(), length);
            let bytes = &buffer[..length];
            self.pass((client, false), fate, bytes, Destination::Client(client));
        }
    }

    /// Counts a datagram, and sends it on its way if it is not lost.
    fn pass(&self, (client, is_up): (SocketAddr, bool), fate: Fate, bytes: &[u8], to: Destination) {
        let number = {
            let mut passed = lock(&self.passed);
            let (up, down) = passed.entry(client).or_default();
            let passed = if is_up { up } else { down };
            passed.datagrams += 1;
            passed.bytes += bytes.len() as u64;
            passed.lost += u64::from(fate == Fate::Lost);
            passed.dropped += u64::from(fate == Fate::Dropped);
            passed.datagrams
        };
        if let Fate::Arrives(arrives) = fate {
            lock(&self.travelling).push(Reverse(Travelling {
                arrives,
                number,
                bytes: bytes.to_vec(),
                to,
            }));
            self.changed.notify_one();
        }
    }

    /// Sends each datagram when it arrives.
    fn deliver(&self) {
        let mut travelling = lock(&self.travelling);
        while !self.is_ending.load(Ordering::SeqCst) {
            let now = self.now();
            let next = travelling.peek().map(|Reverse(next)| next.arrives);
            match next {
                Some(arrives) if arrives <= now => {
                    let Reverse(arrived) = travelling.pop().expect("it was just seen");
                    drop(travelling);
                    // What the other side does not take is lost, as on any path.
                    let _lost = match &arrived.to {
                        Destination::Server(socket) => socket.send(&arrived.bytes),
                        Destination::Client(client) => self.front.send_to(&arrived.bytes, client),
                    };
                    travelling = lock(&self.travelling);
                }
                next => {
                    let wait = next.map_or(STOP_POLL, |next| (next - now).min(STOP_POLL));
                    let (woken, _) = self.changed.wait_timeout(travelling, wait).unwrap();
                    travelling = woken;
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(STOP_POLL))?;
    Ok(socket)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, until it gets nothing.
    fn echo() -> (SocketAddr, JoinHandle<()>) {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let address = server.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 2_000];
            loop {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                if length == 0 {
                    return;
                }
                server.send_to(&buffer[..length], from).unwrap();
            }
        });
        (address, serving)
    }

    fn client(relay: &Relay) -> UdpSocket {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client.connect(relay.address).unwrap();
        client
    }

    #[test]
    fn each_client_gets_its_own_answers_after_a_round_trip() {
        let (server, serving) = echo();
        let link = LinkPlan {
            delay: Duration::from_millis(20),
            ..LinkPlan::default()
        };
        let relay = Relay::start(server, RelayPlan::both(link, 1)).unwrap();
        let clients = [client(&relay), client(&relay)];
        let start = wait::now();
        for (number, client) in (0_u8..).zip(&clients) {
            client.send(&[number; 100]).unwrap();
        }
        for (number, client) in (0_u8..).zip(&clients) {
            let mut answer = [0; 200];
            assert_eq!(client.recv(&mut answer).unwrap(), 100);
            assert_eq!(answer[..100], [number; 100]);
        }
        let took = start.elapsed();
        assert!(Duration::from_millis(40) <= took, "{took:?}");
        clients[0].send(&[]).unwrap();
        serving.join().unwrap();
        let passed = relay.passed();
        assert_eq!(passed.len(), 2);
        let local = clients[1].local_addr().unwrap();
        let once = Passed {
            datagrams: 1,
            bytes: 100,
            ..Passed::default()
        };
        assert_eq!(passed[&local], (once, once));
    }

    #[test]
    fn what_is_late_is_overtaken_and_what_is_lost_is_counted() {
        let (server, serving) = echo();
        let plan = RelayPlan {
            up: LinkPlan {
                lost_of_million: 200_000,
                late_of_million: 300_000,
                late_by: Duration::from_millis(30),
                ..LinkPlan::default()
            },
            seed: 3,
            ..RelayPlan::default()
        };
        let relay = Relay::start(server, plan).unwrap();
        let client = client(&relay);
        for number in 0_u8..200 {
            client.send(&[number]).unwrap();
        }
        let local = client.local_addr().unwrap();
        wait::until_true("all have gone through", || {
            let passed = relay.passed().get(&local).copied().unwrap_or_default();
            passed.0.datagrams == 200 && passed.1.datagrams == 200 - passed.0.lost
        });
        let lost = relay.passed()[&local].0.lost;
        assert!((20..60).contains(&lost), "{lost}");
        let mut order = Vec::new();
        for _ in 0..200 - lost {
            let mut answer = [0; 10];
            client.recv(&mut answer).unwrap();
            order.push(answer[0]);
        }
        assert!(!order.is_sorted());
        order.sort_unstable();
        order.dedup();
        assert_eq!(order.len() as u64, 200 - lost, "each arrives once");
        // One of these gets through.
        for _ in 0..20 {
            client.send(&[]).unwrap();
        }
        serving.join().unwrap();
    }
}
