//! Metrics and health over HTTP, for any service of the farm.
//!
//! The recorder of metrics is one for the whole process: a coordinator and a cache in one process show
//! the same numbers wherever they are asked.

use std::{io, sync::OnceLock};

use axum::{Router, http::StatusCode, routing};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts to count, unless that has begun already. What is counted before is lost.
pub fn install() {
    recorder();
}

/// Everything that was counted in this process, in Prometheus' text format.
pub fn render() -> String {
    let recorder = recorder();
    recorder.run_upkeep();
    recorder.render()
}

/// Answers `/metrics` and `/healthz` on `listener` until `stop`. `/healthz` says 200 while `healthy`
/// gives `Ok`, and 503 with its reason otherwise.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    healthy: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    install();
    let health = move || {
        let answer = match healthy() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        };
        std::future::ready(answer)
    };
    let router = Router::new()
        .route("/metrics", routing::get(|| std::future::ready(render())))
        .route("/healthz", routing::get(health));
    let stopped = stop.cancelled_owned();
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
}

fn recorder() -> &'static PrometheusHandle {
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // If somebody else has put a recorder in place, that one counts and this one shows nothing:
        // no reason to stop a service.
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is in place; /metrics stays empty");
        }
        handle
    })
}
