//! What counts as a use of an entry.

use super::*;

#[tokio::test]
async fn an_entry_that_is_only_looked_at_is_not_used() {
    let farm = Farm::start().await;
    let bytes = content(1, 1_000);
    let worker = farm.worker("red", Trust::Team).await;
    write(&worker, std::slice::from_ref(&bytes)).await.unwrap();
    let put = async |name: &str| {
        let put = worker.put_entry(key("red", name), entry(&bytes), true);
        put.await.unwrap();
    };
    let namespace = "red".parse().unwrap();
    // When it was used, when all that came before has been written.
    let used = async || {
        put("dependency/app/other").await;
        let listed = worker.list_entries(&namespace, "dependency/app/k");
        listed.await.unwrap()[0].1.used
    };
    put("dependency/app/k").await;
    let at_first = used().await;
    while Clock::wall() <= at_first {
        tokio::task::yield_now().await;
    }
    let looked = worker.look_at_entry(key("red", "dependency/app/k")).await;
    assert!(looked.unwrap().is_some());
    assert_eq!(used().await, at_first);
    let got = worker.get_entry(key("red", "dependency/app/k")).await;
    assert!(got.unwrap().is_some());
    assert!(at_first < used().await);
}
