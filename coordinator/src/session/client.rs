//! The session of one client: each of its streams is a request, answered by what the scheduler knows or
//! decides.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{
    access::{Identity, Role},
    build::BuildId,
    message::{
        Refusal,
        client::{BuildRef, ClientReply, ClientRequest, FarmInfo},
    },
    name::WorkerName,
    report::Chain,
};
use scheduler::{Event, Scope, State};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::{Instrument as _, debug, info, info_span, warn};
use transport::{Connection, Stream, StreamError};

use super::{membership, project, refusal, secret, submit, terminals};
use crate::{
    clock,
    farm::{self, Farm},
    watch::{self, WatchError},
};

/// How many requests of one client are served at once; the streams of further ones wait. People follow a
/// few builds at a time, programs some dozens.
pub(super) const REQUESTS_MAX: u32 = 128;
/// How many requests of one client are received at once: each may take [`REQUEST_BYTES_MAX`], and is short.
const RECEIVED_AT_ONCE: usize = 4;
/// The longest request, in bytes: a buildspec of a megabyte, variables, and where the source is.
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a request may take to arrive: who needs longer has gone, and holds up the client's others.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Serves a client until it leaves; says why it ended.
pub(crate) async fn run(
    connection: &Connection,
    identity: &Identity,
    farm: &Arc<Farm>,
) -> &'static str {
    let mut requests = JoinSet::new();
    let receiving = Arc::new(Semaphore::new(RECEIVED_AT_ONCE));
    loop {
        tokio::select! {
            biased;
            Some(ended) = requests.join_next(), if !requests.is_empty() => {
                if let Err(error) = ended {
                    warn!(error = %Chain(&error), "request failed");
                    metrics::counter!("grange_requests_failed_total").increment(1);
                }
            }
            stream = connection.accept() => {
                let Some(stream) = stream else {
                    return "the client has left";
                };
                let request = Request {
                    identity: identity.clone(),
                    remote: connection.remote(),
                    farm: Arc::clone(farm),
                    receiving: Arc::clone(&receiving),
                };
                let span = info_span!("request", team = %identity.team, client = identity.name);
                requests.spawn(request.serve(stream).instrument(span));
            }
        }
    }
}

/// Who asks.
struct Request {
    identity: Identity,
    remote: SocketAddr,
    farm: Arc<Farm>,
    receiving: Arc<Semaphore>,
}

impl Request {
    async fn serve(self, mut stream: Stream) {
        metrics::counter!("grange_requests_total").increment(1);
        match self.converse(&mut stream).await {
            Ok(()) => stream.send.finish(),
            Err(WatchError::Stream { source }) => {
                debug!(error = %Chain(&source), "client is gone");
            }
            Err(error) => {
                // What has been sent is not all there is, so it must not look as if it were.
                warn!(error = %Chain(&error), "watch ended early");
                metrics::counter!("grange_watches_failed_total").increment(1);
                stream.send.reset();
            }
        }
    }

    /// Receives the request; `None`: there is none, or it takes too long.
    async fn receive(&self, stream: &mut Stream) -> Result<Option<ClientRequest>, StreamError> {
        let receiving = self.receiving.acquire().await;
        let _receiving = receiving.expect("the semaphore is never closed");
        let request = stream.receive.message_within(REQUEST_BYTES_MAX);
        let request = timeout(REQUEST_TIME, request).await;
        request.unwrap_or_else(|_elapsed| {
            debug!("request does not arrive");
            stream.send.reset();
            Ok(None)
        })
    }

    async fn converse(&self, stream: &mut Stream) -> Result<(), WatchError> {
        let Some(request) = self.receive(stream).await? else {
            return Ok(());
        };
        let mut shell = None;
        let answer = match &request {
            ClientRequest::Watch { build, .. } => {
                self.find(build.clone()).await.map(ClientReply::Watching)
            }
            ClientRequest::Attach { build, unit } => {
                let opened = self.open_shell(build.clone(), unit.clone()).await;
                opened.map(|opened| {
                    shell = Some(opened);
                    ClientReply::Attached
                })
            }
            _ => self.answer(&request).await,
        };
        if let Err(refused) = &answer {
            debug!(reason = refused.message, "request refused");
            metrics::counter!("grange_requests_refused_total").increment(1);
        }
        match stream.send.message(&answer).await {
            // Nothing of it has left.
            Err(StreamError::Encode { source }) => {
                let refused = refusal::internal("fit the answer into a message", &source);
                let answer: Result<ClientReply, Refusal> = Err(refused);
                return Ok(stream.send.message(&answer).await?);
            }
            sent => sent?,
        }
        if let Some(shell) = shell {
            return Ok(terminals::pass(stream, shell).await?);
        }
        if let (ClientRequest::Watch { from, follow, .. }, Ok(ClientReply::Watching(build))) =
            (request, answer)
        {
            watch::run(&mut stream.send, &self.farm, (build, from), follow).await?;
        }
        Ok(())
    }

    /// Answers whatever is no watching.
    async fn answer(&self, request: &ClientRequest) -> Result<ClientReply, Refusal> {
        let dispatcher = &self.farm.dispatcher;
        self.check_role(request)?;
        match request {
            ClientRequest::Farm => Ok(ClientReply::Farm(FarmInfo {
                cache: *self.farm.members.cache().borrow(),
                namespace: self.identity.team.clone().into(),
                team: self.identity.team.clone(),
            })),
            ClientRequest::Submit(build) => submit::submit(build, &self.identity, &self.farm)
                .await
                .map(ClientReply::Submitted),
            ClientRequest::Builds { project, limit } => {
                let (scope, project, limit) = (self.scope(), project.clone(), *limit);
                let builds = dispatcher
                    .ask(move |state| scheduler::builds(state, &scope, project.as_ref(), limit));
                Ok(ClientReply::Builds(builds.await?))
            }
            ClientRequest::Build(text) => {
                let build = self.find(text.clone()).await?;
                let detail = dispatcher
                    .ask(move |state| scheduler::build_detail(state, build, clock::both()))
                    .await?;
                let detail = detail.ok_or_else(|| gone(text))?;
                Ok(ClientReply::Build(Box::new(detail)))
            }
            ClientRequest::Stop(text) => {
                let build = self.find(text.clone()).await?;
                info!(%build, "build is to stop");
                dispatcher.apply(Event::Stop { build }, |_| ()).await?;
                Ok(ClientReply::Done)
            }
            ClientRequest::Retry { build, id } => {
                let build = self.find(build.clone()).await?;
                submit::retry((build, *id), &self.identity, &self.farm)
                    .await
                    .map(ClientReply::Submitted)
            }
            ClientRequest::Delete(text) => self.delete(text).await,
            ClientRequest::Workers => {
                let scope = self.scope();
                let workers = move |state: &State| scheduler::workers(state, &scope);
                Ok(ClientReply::Workers(dispatcher.ask(workers).await?))
            }
            ClientRequest::Drain(worker) => self.drain(worker).await,
            ClientRequest::CreateToken {
                team,
                role,
                lifetime,
            } => membership::create_token(&self.farm, (team.clone(), *role), *lifetime).await,
            ClientRequest::Tokens => Ok(membership::tokens(&self.farm)),
            ClientRequest::RevokeToken(token) => membership::revoke_token(&self.farm, token).await,
            ClientRequest::Members => {
                let members = self.farm.members.list(clock::wall());
                Ok(ClientReply::Members(members))
            }
            ClientRequest::RevokeMember(named) => {
                membership::revoke_member(&self.farm, named).await
            }
            ClientRequest::AnnounceCache(address) => self.announce(*address).await,
            ClientRequest::SetSecret { .. }
            | ClientRequest::Secrets { .. }
            | ClientRequest::DeleteSecret { .. } => {
                secret::answer(request, &self.identity, &self.farm).await
            }
            ClientRequest::Watch { .. } | ClientRequest::Attach { .. } => Err(elsewhere()),
            _ => project::answer(request, &self.identity, &self.farm).await,
        }
    }

    /// Who may ask what. Workers do not get here.
    fn check_role(&self, request: &ClientRequest) -> Result<(), Refusal> {
        let identity = &self.identity;
        let (what, may) = match request {
            ClientRequest::Farm => return Ok(()),
            ClientRequest::AnnounceCache(_) => ("announce a cache", identity.role == Role::Cache),
            ClientRequest::CreateToken { .. } => {
                ("create join tokens", identity.role == Role::Admin)
            }
            ClientRequest::Drain(_) => ("drain workers", identity.role == Role::Admin),
            ClientRequest::Members
            | ClientRequest::RevokeMember(_)
            | ClientRequest::Tokens
            | ClientRequest::RevokeToken(_) => (
                "list and revoke members and tokens",
                identity.role == Role::Admin,
            ),
            ClientRequest::SaveProject { .. }
            | ClientRequest::Projects
            | ClientRequest::Project(_)
            | ClientRequest::DeleteProject(_)
            | ClientRequest::InvalidateCaches(_) => {
                ("make and change projects", identity.role.is_client())
            }
            ClientRequest::SetSecret { .. }
            | ClientRequest::Secrets { .. }
            | ClientRequest::DeleteSecret { .. } => (
                "set, list and delete secrets",
                matches!(identity.role, Role::Admin | Role::Developer),
            ),
            ClientRequest::Attach { .. } => (
                "open shells in builds",
                matches!(identity.role, Role::Admin | Role::Developer),
            ),
            _ => ("submit, follow and list builds", identity.role.is_client()),
        };
        if may {
            return Ok(());
        }
        Err(refusal::denied(format!("{identity} may not {what}")))
    }

    /// Whose builds this client may see.
    fn scope(&self) -> Scope {
        match self.identity.role {
            Role::Admin => Scope::All,
            _ => Scope::Team(self.identity.team.clone()),
        }
    }

    /// The build that a client means.
    async fn find(&self, text: BuildRef) -> Result<BuildId, Refusal> {
        if !self.identity.role.is_client() {
            let message = format!("{} may not submit, follow and list builds", self.identity);
            return Err(refusal::denied(message));
        }
        let scope = self.scope();
        let found = self
            .farm
            .dispatcher
            .ask(move |state| scheduler::resolve(state, &scope, &text));
        found.await?.map_err(|error| match error {
            scheduler::ResolveError::Unknown { .. } => refusal::not_found(error.to_string()),
            scheduler::ResolveError::Ambiguous { .. } => refusal::invalid(error.to_string()),
        })
    }

    /// A shell in a build that pauses.
    async fn open_shell(&self, build: BuildRef, unit: Option<String>) -> Result<Stream, Refusal> {
        self.check_role(&ClientRequest::Attach {
            build: build.clone(),
            unit: unit.clone(),
        })?;
        let build = self.find(build).await?;
        terminals::open(&self.farm, build, (unit, &self.identity)).await
    }

    async fn delete(&self, text: &BuildRef) -> Result<ClientReply, Refusal> {
        let build = self.find(text.clone()).await?;
        let deleted = self
            .farm
            .dispatcher
            .apply(Event::Delete { build }, move |state| {
                scheduler::is_ended(state, build).is_none()
            });
        if deleted.await? {
            info!(%build, "build deleted");
            return Ok(ClientReply::Done);
        }
        Err(refusal::precondition(format!(
            "build {build} has not ended; stop it before it is deleted"
        )))
    }

    async fn drain(&self, worker: &WorkerName) -> Result<ClientReply, Refusal> {
        let (name, event) = (worker.clone(), worker.clone());
        let dispatcher = &self.farm.dispatcher;
        let known = dispatcher.ask(move |state| scheduler::knows_worker(state, &name));
        if !known.await? {
            let message = format!("no worker is called `{worker}`; `grange workers` lists them");
            return Err(refusal::not_found(message));
        }
        info!(%worker, "worker is to drain");
        dispatcher
            .apply(Event::Drain { worker: event }, |_| ())
            .await?;
        Ok(ClientReply::Done)
    }

    async fn announce(&self, said: SocketAddr) -> Result<ClientReply, Refusal> {
        let address = farm::reachable(said, self.remote.ip());
        if address.port() == 0 {
            return Err(refusal::invalid(format!(
                "nobody can reach a cache at {said}"
            )));
        }
        let farm = Arc::clone(&self.farm);
        let set = spawn_blocking(move || farm.members.set_cache(address)).await;
        let is_new = set
            .expect("writing the members does not panic")
            .map_err(|error| refusal::internal("remember where the cache is", &error))?;
        // The cache says it every now and then.
        if is_new {
            info!(%address, "cache announced itself");
        }
        Ok(ClientReply::Done)
    }
}

/// A stream of its own is the answer.
fn elsewhere() -> Refusal {
    refusal::invalid("a watch and a shell are answered elsewhere")
}

/// A build was deleted between two questions.
fn gone(text: &str) -> Refusal {
    refusal::not_found(format!("no build is called `{text}`"))
}
