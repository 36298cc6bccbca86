//! What the crate promises, over loopback: a farm of certificates, a server that greets and echoes, and a
//! path that can be tampered with.

mod greeting;
mod hostile;
mod idle;
mod joining;
mod lanes;
mod moving;
mod streams;

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{
    access::{Identity, Role},
    message::{
        Refusal, RefusalCode,
        handshake::{IssuedCertificate, Purpose},
    },
    time::WallTime,
};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet};

use crate::{
    Arriving, Authority, Client, Connection, Credentials, GrantSigner, HandshakeError, JoinToken,
    Server, ServerLimits, Stream, client, dial, tls,
};

/// Longer than anybody runs these tests: certificates count from 1970, so that no clock is needed.
const CENTURIES: Duration = Duration::from_secs(200 * 365 * 24 * 60 * 60);
/// How many late events a test may leave unread.
const EVENTS_MAX: usize = 1_000;

struct Farm {
    authority: Authority,
    grants: GrantSigner,
}

impl Farm {
    fn new() -> Self {
        Self {
            authority: Authority::create().unwrap(),
            grants: GrantSigner::create(),
        }
    }

    fn member(&self, role: Role) -> Credentials {
        self.member_for(role, CENTURIES)
    }

    /// A member whose certificate counts from 1970 on.
    fn member_for(&self, role: Role, lifetime: Duration) -> Credentials {
        let identity = identity(role, &format!("my-{role}"));
        let grants = self.grants.public_key();
        Credentials::self_issued(&self.authority, identity, &grants, WallTime(0), lifetime).unwrap()
    }

    fn server(&self, role: Role) -> Server {
        self.server_within(role, ServerLimits::default())
    }

    fn server_within(&self, role: Role, limits: ServerLimits) -> Server {
        Server::bind(localhost(), &self.member(role), limits).unwrap()
    }

    fn client(&self, role: Role) -> Client {
        Client::new(&self.member(role)).unwrap()
    }
}

fn identity(role: Role, name: &str) -> Identity {
    Identity {
        team: "red".parse().unwrap(),
        role,
        name: name.to_owned(),
    }
}

fn localhost() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// An error with its causes, as the program prints it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// What a running server has seen.
#[derive(Debug)]
enum Event {
    Joined(Connection),
    Heard(String),
    Failed(HandshakeError),
}

/// A server that lets workers in, enrols who has the token, and echoes texts.
struct Running {
    addr: SocketAddr,
    server: Arc<Server>,
    token: JoinToken,
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Running {
    fn start(farm: Farm, server: Server) -> Self {
        let server = Arc::new(server);
        let token = JoinToken::new(farm.authority.fingerprint());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mut tasks = JoinSet::new();
        let desk = Arc::new(Desk {
            farm,
            token: token.clone(),
            events: sender,
        });
        let listening = Arc::clone(&server);
        tasks.spawn(async move {
            let mut guests = JoinSet::new();
            while let Some(arriving) = listening.accept().await {
                guests.spawn(Arc::clone(&desk).receive(arriving));
            }
        });
        Self {
            addr: server.local_addr(),
            server,
            token,
            events,
            _tasks: tasks,
        }
    }

    async fn joined(&mut self) -> Connection {
        loop {
            match self.events.recv().await.unwrap() {
                Event::Joined(connection) => return connection,
                Event::Heard(_) => {}
                Event::Failed(error) => panic!("{}", chain(&error)),
            }
        }
    }

    async fn failed(&mut self) -> HandshakeError {
        loop {
            if let Event::Failed(error) = self.events.recv().await.unwrap() {
                return error;
            }
        }
    }
}

struct Desk {
    farm: Farm,
    token: JoinToken,
    events: mpsc::Sender<Event>,
}

impl Desk {
    async fn receive(self: Arc<Self>, arriving: Arriving) {
        let greeting = match arriving.greet().await {
            Ok(greeting) => greeting,
            Err(error) => return self.events.send(Event::Failed(error)).await.unwrap(),
        };
        let certificate = match self.decide(&greeting.purpose, greeting.identity.as_ref()) {
            Ok(certificate) => certificate,
            Err(refusal) => return greeting.refuse(refusal).await,
        };
        let connection = greeting.welcome(certificate).await.unwrap();
        let event = Event::Joined(connection.clone());
        self.events.send(event).await.unwrap();
        let mut streams = JoinSet::new();
        while let Some(stream) = connection.accept().await {
            streams.spawn(echo(stream, self.events.clone()));
        }
    }

    fn decide(
        &self,
        purpose: &Purpose,
        identity: Option<&Identity>,
    ) -> Result<Option<IssuedCertificate>, Refusal> {
        let refuse = |message: &str| Err(Refusal::new(RefusalCode::PermissionDenied, message));
        match (purpose, identity) {
            (
                Purpose::Enrol {
                    token,
                    request,
                    name,
                },
                None,
            ) => {
                if JoinToken::hash_of(token) != self.token.secret_hash() {
                    return refuse("the join token is unknown");
                }
                Ok(Some(self.issue(
                    request,
                    &crate::tests::identity(Role::Worker, name),
                )))
            }
            (Purpose::Renew { request }, Some(identity)) => Ok(Some(self.issue(request, identity))),
            (_, None) => refuse("there is no certificate: join with a token first"),
            (_, Some(identity)) if identity.role == Role::Worker => Ok(None),
            (_, Some(identity)) => refuse(&format!("{identity} is no worker")),
        }
    }

    fn issue(&self, request: &[u8], identity: &Identity) -> IssuedCertificate {
        let authority = &self.farm.authority;
        let certificate = authority.issue(request, identity, WallTime(0), CENTURIES);
        IssuedCertificate {
            identity: identity.clone(),
            certificate: certificate.unwrap(),
            authority: authority.certificate().to_vec(),
            grant_key: self.farm.grants.public_key(),
        }
    }
}

/// Answers each text with itself, and refuses `no`.
async fn echo(mut stream: Stream, events: mpsc::Sender<Event>) {
    while let Ok(Some(text)) = stream.receive.message::<String>().await {
        events.send(Event::Heard(text.clone())).await.unwrap();
        let answer = if text == "no" {
            Err(Refusal::new(
                RefusalCode::InvalidArgument,
                "`no` is not echoed",
            ))
        } else {
            Ok(text)
        };
        if stream.send.message(&answer).await.is_err() {
            return;
        }
    }
}

/// Asks for an echo over an own stream.
async fn ask(connection: &Connection, text: &str) -> Result<String, Refusal> {
    let mut stream = connection.open().await.unwrap();
    stream.request(&text).await.unwrap()
}

/// A connection past TLS that has said nothing yet.
async fn silent(credentials: &Credentials, addr: SocketAddr) -> quinn::Connection {
    let config = tls::member(credentials).unwrap();
    let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
    let connecting = endpoint.connect_with(config, addr, "coordinator.grange");
    connecting.unwrap().await.unwrap()
}

/// A path between one client and a server that keeps what passes towards the server.
struct Relay {
    addr: SocketAddr,
    path: Arc<Path>,
    _tasks: JoinSet<()>,
}

struct Path {
    socket: UdpSocket,
    server: Mutex<SocketAddr>,
    passed: Mutex<Vec<Vec<u8>>>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let path = Arc::new(Path {
            socket: UdpSocket::bind(localhost()).await.unwrap(),
            server: Mutex::new(server),
            passed: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(Arc::clone(&path)));
        Self {
            addr: path.socket.local_addr().unwrap(),
            path,
            _tasks: tasks,
        }
    }

    /// From now on datagrams go to another server.
    fn redirect(&self, server: SocketAddr) {
        *self.path.server.lock().unwrap() = server;
    }

    /// Sends everything again that has passed so far.
    async fn replay(&self) -> usize {
        let passed = self.path.passed.lock().unwrap().clone();
        let server = *self.path.server.lock().unwrap();
        for datagram in &passed {
            self.path.socket.send_to(datagram, server).await.unwrap();
        }
        passed.len()
    }
}

async fn carry(path: Arc<Path>) {
    let mut buffer = vec![0; 65_536];
    let mut client = None;
    loop {
        let (length, from) = path.socket.recv_from(&mut buffer).await.unwrap();
        let server = *path.server.lock().unwrap();
        let datagram = &buffer[..length];
        let target = if from == server {
            client
        } else if Some(from) == client || client.is_none() {
            client = Some(from);
            path.passed.lock().unwrap().push(datagram.to_vec());
            Some(server)
        } else {
            None
        };
        if let Some(target) = target {
            path.socket.send_to(datagram, target).await.unwrap();
        }
    }
}
