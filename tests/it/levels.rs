//! Which isolation levels this machine can do, found out as a worker does.

use protocol::worker::Isolation;
use testkit::program;
use tokio::runtime::Runtime;
use worker::sandbox::probe;

/// The levels that this machine can do; says so if it is only one.
pub(crate) async fn levels() -> Vec<Isolation> {
    let directory = tempfile::tempdir().unwrap();
    let probe = probe(directory.path(), &program::grange(), "").await;
    match probe.namespace {
        Ok(()) => vec![Isolation::Host, Isolation::Namespace],
        Err(why) => {
            testkit::cannot(&format!("level `namespace` does not work here: {why}"));
            vec![Isolation::Host]
        }
    }
}

/// Whether this machine can do level `namespace`; says so if not.
pub(crate) fn has_namespaces() -> bool {
    let levels = Runtime::new().unwrap().block_on(levels());
    levels.contains(&Isolation::Namespace)
}
