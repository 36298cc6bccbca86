//! One connection: who is there, and a task for each stream, with limits on what they take.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use metrics::counter;
use protocol::{
    access::{Identity, Revocation, Role},
    message::{
        Refusal, RefusalCode,
        cache::{CacheReply, CacheRequest, DIGESTS_MAX, REVOCATIONS_MAX},
        handshake::Purpose,
    },
    name::Team,
    time::WallTime,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use transport::{Arriving, Connection, Greeting, Stream};

use super::{
    Context,
    access::Access,
    chunks, entries,
    rates::{Limits, Pace, TeamShare},
    refusal::{chain, invalid, late},
};
use crate::clock::Clock;

/// How long a client may take to send a request, and to send or take one chunk of it. A chunk in a
/// minute is 35 kB/s: who is slower than that has gone.
pub(super) const STALL_TIME: Duration = Duration::from_secs(60);
/// How many requests of one connection are received at once: each may take a frame of 4 MiB. They are
/// short, so more would only wait.
const RECEIVED_AT_ONCE: usize = 4;
/// How many bytes of chunks one connection may have in the cache that are not durable yet, unpacked ones
/// included: what one group of the writer takes, and the same again while that is being written.
const WRITE_ROOM_BYTES: usize = 32 << 20;
/// How many bytes of chunks of one connection are received at once: two of the largest. What does not
/// fit waits in the window of its stream.
const ARRIVING_ROOM_BYTES: usize = 5 << 20;
/// How many digests the requests of one connection may name that are not looked up yet: two full
/// requests.
const DIGESTS_AT_ONCE: usize = 2 * DIGESTS_MAX;
/// How many bytes of one team's chunks may be in the cache on their way to one connection: who does not read
/// holds no more than this of the team's room. Two of the largest, so that one is read while another is sent.
const TEAM_READ_ROOM_BYTES: usize = 4 << 20;
/// The same of all teams that use one connection: as much as four take that do not read.
const READ_ROOM_BYTES: usize = 4 * TEAM_READ_ROOM_BYTES;
/// How long requests that are under way may go on when the cache stops: what a client needs to send the rest of
/// some chunks and hear that they are durable.
const GRACE_TIME: Duration = Duration::from_secs(5);

/// What the streams of one connection share.
#[derive(Debug)]
pub(super) struct Session {
    access: Mutex<Access>,
    pub(super) arriving_room: Arc<Semaphore>,
    pub(super) write_room: Arc<Semaphore>,
    /// By team: of those whose chunks are on their way to it.
    team_read_rooms: Mutex<BTreeMap<Team, Arc<Semaphore>>>,
    read_room: Arc<Semaphore>,
    pub(super) pace: Pace,
    /// How many windows of chunks were sent: whose turn it is.
    pub(super) turns: AtomicU32,
    receiving: Semaphore,
    digests: Semaphore,
}

impl Session {
    fn new(identity: Identity, limits: &Limits) -> Self {
        Self {
            access: Mutex::new(Access::new(identity)),
            arriving_room: Arc::new(Semaphore::new(ARRIVING_ROOM_BYTES)),
            write_room: Arc::new(Semaphore::new(WRITE_ROOM_BYTES)),
            team_read_rooms: Mutex::default(),
            read_room: Arc::new(Semaphore::new(READ_ROOM_BYTES)),
            pace: Pace::of_connection(limits),
            turns: AtomicU32::new(0),
            receiving: Semaphore::new(RECEIVED_AT_ONCE),
            digests: Semaphore::new(DIGESTS_AT_ONCE),
        }
    }

    /// Waits for room for a request's digests, at most [`DIGESTS_MAX`].
    pub(super) async fn reserve_digests(&self, count: usize) -> SemaphorePermit<'_> {
        let permits = u32::try_from(count).expect("the count is checked");
        let room = self.digests.acquire_many(permits).await;
        room.expect("the semaphore is never closed")
    }

    /// Waits for room for `bytes` of the chunks of `team`, whose share is `share`, that are read for this connection.
    ///
    /// Who waits holds up nobody else: first for what the team has on this connection, with nothing; then for what
    /// the team has on all of them, with what only the team could use; last for what all teams have on this
    /// connection, with no more of its team's than a connection may have that does not read.
    pub(super) async fn reserve_read(
        &self,
        team: &Team,
        share: &TeamShare,
        bytes: u64,
    ) -> [OwnedSemaphorePermit; 3] {
        [
            chunks::reserve(&self.team_read_room(team), bytes).await,
            share.reads.reserve(bytes).await,
            chunks::reserve(&self.read_room, bytes).await,
        ]
    }

    fn team_read_room(&self, team: &Team) -> Arc<Semaphore> {
        // Every change to it is one step.
        let rooms = self.team_read_rooms.lock();
        let mut rooms = rooms.unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(team) {
            return Arc::clone(room);
        }
        // So there are no more than streams, whichever teams are named: who has some of a room, or waits for it, has
        // the room.
        rooms.retain(|_, room| 1 < Arc::strong_count(room));
        let room = Arc::new(Semaphore::new(TEAM_READ_ROOM_BYTES));
        rooms.insert(team.clone(), Arc::clone(&room));
        room
    }

    /// What the connection may do. Not to be kept across an await.
    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        // Every change to it is one step.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Greets who arrives, and serves the connection until it or the cache ends.
pub(super) async fn serve(arriving: Arriving, context: Arc<Context>, stop: CancellationToken) {
    let greeting = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        greeting = arriving.greet() => greeting,
    };
    let greeting = match greeting {
        Ok(greeting) => greeting,
        Err(error) => {
            counter!("grange_cache_handshakes_failed_total").increment(1);
            return debug!(error = %chain(&error), "handshake failed");
        }
    };
    let mut revoked = context.revoked.subscribe();
    let known = Arc::clone(&revoked.borrow_and_update());
    let (identity, issued) = match admit(&greeting, &known) {
        Ok(identity) => identity,
        Err(refusal) => {
            count_refused(refusal.code);
            return greeting.refuse(refusal).await;
        }
    };
    let _place = match context.guests.admit(&identity) {
        Ok(place) => place,
        Err(error) => {
            let refusal = Refusal::new(RefusalCode::ResourceExhausted, error.to_string());
            count_refused(refusal.code);
            return greeting.refuse(refusal).await;
        }
    };
    let (remote, program) = (greeting.remote, greeting.program.clone());
    let connection = match greeting.welcome(None).await {
        Ok(connection) => connection,
        Err(error) => return debug!(error = %chain(&error), "handshake failed"),
    };
    info!(%remote, who = %identity, program, "connected");
    let session = Session::new(identity.clone(), context.teams.limits());
    let session = streams(&connection, session, context, stop);
    let is_revoked = |revoked: &Arc<[Revocation]>| {
        let mut revoked = revoked.iter();
        revoked.any(|revocation| revocation.covers(&identity, issued))
    };
    tokio::select! {
        () = session => {}
        // The sender is in the context, which lives as long as the session.
        _ = revoked.wait_for(is_revoked) => connection.close(REVOKED),
    }
    info!(%remote, "disconnected");
}

/// What those hear whose certificate counts no more.
const REVOKED: &str = "the certificate was revoked; join again with a new token";
/// What those hear whose certificate's time is over.
const EXPIRED: &str = "the certificate has expired; join again with a new token";

/// Who it is, and since when its certificate counts, if the cache has to do with them.
fn admit(greeting: &Greeting, revoked: &[Revocation]) -> Result<(Identity, WallTime), Refusal> {
    if greeting.purpose != Purpose::Requests {
        let message = "certificates come from the coordinator; this is the cache";
        return Err(Refusal::new(RefusalCode::FailedPrecondition, message));
    }
    let Some(certificate) = &greeting.certificate else {
        let message = "the cache wants a certificate: join the farm first, with a token";
        return Err(Refusal::new(RefusalCode::PermissionDenied, message));
    };
    let (identity, issued) = (&certificate.identity, certificate.issued());
    if revoked.iter().any(|one| one.covers(identity, issued)) {
        return Err(Refusal::new(RefusalCode::PermissionDenied, REVOKED));
    }
    // TLS looks at dates only when a session is new.
    if certificate.valid_until <= Clock::wall() {
        return Err(Refusal::new(RefusalCode::PermissionDenied, EXPIRED));
    }
    if identity.role == Role::Cache {
        let message = format!("{identity} may not use a cache: it is one");
        return Err(Refusal::new(RefusalCode::PermissionDenied, message));
    }
    Ok((identity.clone(), issued))
}

async fn streams(
    connection: &Connection,
    session: Session,
    context: Arc<Context>,
    stop: CancellationToken,
) {
    let session = Arc::new(session);
    let expires = connection
        .certificate()
        .map(|certificate| certificate.valid_until);
    // Who drops it ends all of them: nobody waits for the answers any more.
    let mut streams = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_ended) = streams.join_next() => continue,
            stream = connection.accept() => stream,
        };
        let Some(stream) = stream else { break };
        if expires.is_some_and(|end| end <= Clock::wall()) {
            connection.close("the certificate has expired; connect again with the renewed one");
            break;
        }
        let (session, context) = (Arc::clone(&session), Arc::clone(&context));
        streams.spawn(async move { answer(stream, &session, &context).await });
    }
    let ended = async { while streams.join_next().await.is_some() {} };
    if stop.is_cancelled() && timeout(GRACE_TIME, ended).await.is_err() {
        debug!("requests were under way when the cache stopped");
    }
}

/// Answers one request.
async fn answer(mut stream: Stream, session: &Session, context: &Context) {
    // Who has sent nothing yet takes no place from those who have: what they sent may be what fills the connection's
    // window. What is wrong with the stream, the request will say.
    let _broken = stream.receive.ready().await;
    let receiving = session.receiving.acquire().await;
    let receiving = receiving.expect("the semaphore is never closed");
    let answer = match timeout(STALL_TIME, stream.receive.message()).await {
        Err(_elapsed) => Err(late("the request did not arrive in time")),
        // The client has gone, or has sent what makes no sense; then transport has ended the connection.
        Ok(Err(error)) => {
            counter!("grange_cache_requests_broken_total").increment(1);
            return debug!(error = %chain(&error), "request not received");
        }
        Ok(Ok(None)) => return,
        Ok(Ok(Some(request))) => {
            dispatch(request, receiving, &mut stream, (session, context)).await
        }
    };
    if let Err(refusal) = &answer {
        debug!(?refusal, "request refused");
        count_refused(refusal.code);
        // What the client still sends is not read.
        stream.receive.stop();
    }
    let answer = match answer {
        Ok(None) => return finish(stream).await,
        Ok(Some(reply)) => Ok(reply),
        Err(refusal) => Err(refusal),
    };
    match timeout(STALL_TIME, stream.send.message(&answer)).await {
        Ok(Ok(())) => finish(stream).await,
        Ok(Err(error)) => debug!(error = %chain(&error), "answer not sent"),
        Err(_elapsed) => stream.send.reset(),
    }
}

/// Ends an answer, and waits until the client has all of it: a connection that is closed before drops the
/// rest.
async fn finish(mut stream: Stream) {
    stream.send.finish();
    stream.send.stopped().await;
}

/// Counts what was refused: forged or expired grants, what somebody may not do, what makes no sense.
fn count_refused(code: RefusalCode) {
    counter!("grange_cache_requests_refused_total", "code" => code.as_str()).increment(1);
}

/// Does what a request says. `None`: the answer has been sent.
async fn dispatch(
    request: CacheRequest,
    receiving: SemaphorePermit<'_>,
    stream: &mut Stream,
    (session, context): (&Session, &Context),
) -> Result<Option<CacheReply>, Refusal> {
    let reply = match request {
        CacheRequest::PresentGrant(signed) => {
            let now = Clock::wall();
            let grant = context
                .verifier
                .verify(&signed, now)
                .map_err(|error| Refusal::new(RefusalCode::PermissionDenied, chain(&error)))?;
            session.access().add(grant, now)?;
            CacheReply::Done
        }
        CacheRequest::FindMissing { team, chunks } => {
            chunks::find_missing(team, chunks, (session, context)).await?
        }
        // It may wait for the team's rate, and is small.
        CacheRequest::ReportDamage { team, chunks } => {
            drop(receiving);
            chunks::report_damage(team, chunks, (session, context)).await?
        }
        CacheRequest::ReadChunks { team, chunks } => {
            chunks::check_count(chunks.len())?;
            let named = session.reserve_digests(chunks.len()).await;
            drop(receiving);
            let named = (chunks.into(), named);
            chunks::read(team, named, stream, (session, context)).await?;
            return Ok(None);
        }
        CacheRequest::WriteChunks { team } => {
            drop(receiving);
            chunks::write(&team, &mut stream.receive, (session, context)).await?
        }
        CacheRequest::PutEntry {
            key,
            entry,
            replace,
            made_millis,
        } => entries::put(key, entry, (replace, made_millis), (session, context)).await?,
        // These may wait for the cold tier, and are small.
        CacheRequest::GetEntry { key, is_use } => {
            drop(receiving);
            entries::get(key, is_use, (session, context)).await?
        }
        CacheRequest::ListEntries {
            namespace,
            prefix,
            after,
        } => {
            drop(receiving);
            entries::list(namespace, (prefix, after), (session, context)).await?
        }
        CacheRequest::DeleteEntries { namespace, prefix } => {
            drop(receiving);
            entries::delete(&namespace, &prefix, (session, context)).await?
        }
        CacheRequest::Record(record) => entries::record(record, (session, context)).await?,
        CacheRequest::Stats { after } => entries::stats(after, (session, context)).await?,
        CacheRequest::Revoked(revoked) => {
            session.access().revoke()?;
            if REVOCATIONS_MAX < revoked.len() {
                return Err(invalid("too much is revoked"));
            }
            context.revoked.send_replace(revoked.into());
            CacheReply::Done
        }
        CacheRequest::Collect => entries::collect((session, context)).await?,
    };
    Ok(Some(reply))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::{super::rates::Teams, *};

    #[tokio::test]
    async fn teams_have_rooms_of_their_own_on_a_connection_and_all_of_them_what_four_take() {
        let identity = Identity {
            team: "farm".parse().unwrap(),
            role: Role::Worker,
            name: "worker".to_owned(),
        };
        let limits = Limits::default();
        let (session, teams) = (Session::new(identity, &limits), Teams::new(limits));
        let reserve = async |number: u32, bytes: usize| {
            let team: Team = format!("team{number}").parse().unwrap();
            let share = teams.share(&team);
            session.reserve_read(&team, &share, bytes as u64).await
        };
        let mut held = Vec::new();
        for number in 0..4 {
            let room = reserve(number, TEAM_READ_ROOM_BYTES).now_or_never();
            held.push(room.expect("no team waits for another"));
        }
        let mut fifth = pin!(reserve(4, 1));
        assert!(fifth.as_mut().now_or_never().is_none());
        let mut first = pin!(reserve(0, 1));
        assert!(first.as_mut().now_or_never().is_none());
        drop(held.remove(0));
        assert!(fifth.now_or_never().is_some());
        assert!(first.now_or_never().is_some());
        held.clear();
        assert!(reserve(5, 1).now_or_never().is_some());
        let rooms = session.team_read_rooms.lock().unwrap();
        assert_eq!(rooms.len(), 1, "those that nobody uses are forgotten");
    }
}
