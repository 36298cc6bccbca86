//! One at a time for each key: who comes while another fetches the same waits for that instead.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::lock;

/// The keys that are being fetched.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Flights {
    /// The right to fetch `key`; `None`, after waiting, if somebody else just did.
    ///
    /// # Cancel safety
    ///
    /// Who stops waiting holds up nobody.
    pub(super) async fn enter(&self, key: &str) -> Option<Flight<'_>> {
        let turn = Arc::clone(lock(&self.0).entry(key.to_owned()).or_default());
        match Arc::clone(&turn).try_lock_owned() {
            Ok(turn) => Some(Flight {
                flights: self,
                key: key.to_owned(),
                _turn: turn,
            }),
            Err(_busy) => {
                drop(turn.lock_owned().await);
                None
            }
        }
    }
}

/// The right to fetch a key, until it is dropped.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.flights.0).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_and_fetches_nothing() {
        let flights = Flights::default();
        let first = flights.enter("a").await.unwrap();
        assert!(flights.enter("b").await.is_some(), "another key is free");
        let second = flights.enter("a");
        tokio::pin!(second);
        let waiting = std::future::poll_fn(|context| {
            let polled = second.as_mut().poll(context);
            std::task::Poll::Ready(polled.is_pending())
        });
        assert!(waiting.await, "the first is under way");
        drop(first);
        assert!(second.await.is_none());
        assert!(flights.enter("a").await.is_some(), "it is free again");
        assert!(lock(&flights.0).is_empty());
    }
}
