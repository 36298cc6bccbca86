//! One at a time for each key: who comes while another fetches the same waits for that instead.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::lock;

/// What is being fetched. A turn holds whether whoever had it has finished.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, Arc<Turn<bool>>>>);

impl Flights {
    /// The right to fetch `key`; `None`, after waiting, if somebody else has finished doing so.
    ///
    /// # Cancel safety
    ///
    /// Who stops waiting holds up nobody.
    pub(super) async fn enter(&self, key: &str) -> Option<Flight<'_>> {
        let turn = Arc::clone(lock(&self.0).entry(key.to_owned()).or_default());
        let turn = turn.lock_owned().await;
        if *turn {
            return None;
        }
        // The first, or the next of those who waited for one that was broken off.
        Some(Flight {
            flights: self,
            key: key.to_owned(),
            turn,
        })
    }
}

/// The right to fetch a key, until it is dropped.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
    turn: OwnedMutexGuard<bool>,
}

impl Flight<'_> {
    /// Says that it is done, with whatever result: who waits need not do it.
    pub(super) fn finish(mut self) {
        *self.turn = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.flights.0).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_waiting(second: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut *second).poll(context);
            std::task::Poll::Ready(polled.is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn who_comes_second_waits_and_fetches_nothing() {
        let flights = Flights::default();
        let first = flights.enter("a").await.unwrap();
        assert!(flights.enter("b").await.is_some(), "another key is free");
        let mut second = Box::pin(flights.enter("a"));
        assert!(is_waiting(&mut second).await, "the first is under way");
        first.finish();
        assert!(second.await.is_none());
        assert!(flights.enter("a").await.is_some(), "it is free again");
        assert!(lock(&flights.0).is_empty());
    }

    #[tokio::test]
    async fn who_waited_for_one_that_was_broken_off_fetches() {
        let flights = Flights::default();
        let first = flights.enter("a").await.unwrap();
        let mut second = Box::pin(flights.enter("a"));
        assert!(is_waiting(&mut second).await);
        drop(first);
        assert!(second.await.is_some());
    }
}
