//! The start of a phase that must not run twice: its first command waits until the coordinator has noted
//! that it is about to start.

use protocol::lease::LeaseId;
use tokio::sync::{mpsc, oneshot};

use crate::fault::Fault;

/// That the first command of an attempt is about to start.
#[derive(Debug)]
pub(crate) struct BeginRequest {
    /// The attempt's lease.
    pub(crate) lease: LeaseId,
    /// Lets it.
    pub(crate) go_ahead: oneshot::Sender<()>,
}

/// Asks whether the first command of an attempt may start.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    lease: LeaseId,
    /// `None`: the phase may run twice, so nobody has to be asked.
    requests: Option<mpsc::Sender<BeginRequest>>,
}

impl Begin {
    /// For the attempt under `lease`; `asks`: whether anybody has to be asked.
    pub(crate) fn new(lease: LeaseId, requests: mpsc::Sender<BeginRequest>, asks: bool) -> Self {
        let requests = asks.then_some(requests);
        Self { lease, requests }
    }

    /// Waits until the first command may start. While the coordinator is away that is until it is back, or
    /// the lease runs out.
    ///
    /// # Errors
    ///
    /// If the worker is about to end.
    pub(crate) async fn wait(&self) -> Result<(), Fault> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        let (go_ahead, goes) = oneshot::channel();
        let request = BeginRequest {
            lease: self.lease,
            go_ahead,
        };
        let gone = || Fault::new("begin the phase", "the worker is about to end");
        requests.send(request).await.map_err(|_| gone())?;
        goes.await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId(3);

    #[tokio::test]
    async fn a_command_waits_until_it_may_start() {
        let (requests, mut arrived) = mpsc::channel(1);
        let begin = Begin::new(LEASE, requests, true);
        let waiting = begin.wait();
        tokio::pin!(waiting);
        let request = tokio::select! {
            biased;
            _ = &mut waiting => panic!("nobody has let it start"),
            request = arrived.recv() => request.unwrap(),
        };
        assert_eq!(request.lease, LEASE);
        request.go_ahead.send(()).unwrap();
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn a_phase_that_may_run_twice_asks_nobody() {
        let (requests, arrived) = mpsc::channel(1);
        drop(arrived);
        assert!(
            Begin::new(LEASE, requests.clone(), false)
                .wait()
                .await
                .is_ok()
        );
        assert!(Begin::new(LEASE, requests, true).wait().await.is_err());
    }
}
