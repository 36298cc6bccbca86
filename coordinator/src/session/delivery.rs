//! Secrets for a worker that holds a lease: the answer to its question, on a stream of its own.

use std::sync::Arc;

use protocol::{
    access::Trust,
    build::PhaseContext,
    lease::LeaseId,
    message::Refusal,
    name::WorkerName,
    report::Chain,
    secret::{SecretDelivery, SecretsReply},
};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};
use transport::Stream;

use super::refusal;
use crate::{farm::Farm, secrets::Wanted};

/// Answers a worker that asks for the secrets of the unit of a lease.
pub(super) async fn run(mut stream: Stream, lease: LeaseId, worker: &WorkerName, farm: &Arc<Farm>) {
    let answer = answer(lease, worker, farm).await;
    if let Err(refused) = &answer {
        debug!(%worker, %lease, reason = refused.message, "secrets refused");
        metrics::counter!("grange_secrets_refused_total").increment(1);
    }
    match stream.send.message(&answer).await {
        Ok(()) => stream.send.finish(),
        Err(error) => debug!(%worker, error = %Chain(&error), "worker is gone"),
    }
}

async fn answer(
    lease: LeaseId,
    worker: &WorkerName,
    farm: &Arc<Farm>,
) -> Result<SecretsReply, Refusal> {
    let asked = farm
        .dispatcher
        .ask(move |state| scheduler::secrets_asked(state, lease));
    // One that is over, and one of another worker, are one to who asks.
    let asked = asked.await?.filter(|asked| asked.worker == *worker);
    let Some(asked) = asked else {
        return Err(refusal::denied(format!("{worker} does not hold {lease}")));
    };
    if asked.trust == Trust::Untrusted && !asked.secrets.is_empty() {
        return Ok(SecretsReply::Unresolved(PhaseContext {
            status_code: "CLIENT_ERROR".to_owned(),
            message: "A build from outside the team is given no secrets".to_owned(),
        }));
    }
    let job = asked.job;
    let wanted = Wanted {
        build: job.build,
        team: asked.team,
        project: asked.project,
        refs: asked.secrets,
    };
    let secrets = Arc::clone(&farm.secrets);
    let delivered = spawn_blocking(move || secrets.deliver(&wanted)).await;
    let reply = match delivered.expect("delivering secrets does not panic") {
        Ok(reply) => reply,
        // The worker asks again until the time of its build is over.
        Err(error) if error.is_passing() => {
            warn!(%job, error = %Chain(&error), "secrets cannot be read now");
            return Err(refusal::unavailable("secrets cannot be read now"));
        }
        // It is no worker's doing, and would be the same on any.
        Err(error) => SecretsReply::Unresolved(PhaseContext {
            status_code: "INTERNAL_SERVICE_ERROR".to_owned(),
            message: refusal::internal("read the secrets of the build", &error).message,
        }),
    };
    if let SecretsReply::Delivered(SecretDelivery { secrets, .. }) = &reply {
        info!(%job, %worker, %lease, secrets = secrets.len(), "secrets delivered");
        metrics::counter!("grange_secrets_delivered_total").increment(secrets.len() as u64);
    }
    Ok(reply)
}
