//! Connections that nobody uses for a while.

use super::*;
use crate::config::{IDLE_TIMEOUT, KEEP_ALIVE};

/// Time passes as it does: tests that wait for much of it are compiled with `GRANGE_SLOW_TESTS=1`.
const IS_SLOW: bool = option_env!("GRANGE_SLOW_TESTS").is_some();

#[test]
fn three_keep_alives_may_be_lost() {
    assert!(3 * KEEP_ALIVE < IDLE_TIMEOUT);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_outlives_the_idle_timeout() {
    if !IS_SLOW {
        return;
    }
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let there = client.connect(running.addr, Role::Coordinator);
    let there = there.await.unwrap();
    let here = running.joined().await;
    let silence = IDLE_TIMEOUT + KEEP_ALIVE;
    let over = tokio::time::timeout(silence, async {
        tokio::join!(there.closed(), here.closed())
    });
    assert!(over.await.is_err(), "it is there still");
    assert_eq!((there.lost(), here.lost()), (None, None));
    assert_eq!(ask(&there, "still there").await.unwrap(), "still there");
}
