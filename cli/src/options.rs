//! From settings to what the services take.

use std::{
    collections::BTreeMap, env, net::SocketAddr, num::NonZeroU64, path::Path, time::Duration,
};

use anyhow::Context as _;
use protocol::name::WorkerName;

use crate::{
    build_command, embedded::TEAM, error::CommandError, farm_plan::FarmPlan, settings::File,
};

/// The coordinator's options; its data lies in `coordinator` below the farm's directory.
pub(crate) fn coordinator(settings: &File, plan: &FarmPlan) -> coordinator::Options {
    let file = &settings.coordinator;
    let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
    coordinator::Options {
        listen: plan.listen,
        advertise: plan.advertise,
        directory: plan.directory.join("coordinator"),
        secrets_key: Some(plan.secrets_key.clone()),
        metrics_listen: file.metrics_listen.filter(|_| plan.metrics),
        build_time_limit: minutes(file.build_minutes_max.get()),
        batch_time_limit: minutes(file.batch_minutes_max.get()),
        queue_time_limit: minutes(file.queue_minutes_max.get()),
        retention: days(file.retention_days),
        retention_bytes: file.retention_bytes_max,
        team_shares: file
            .team_shares
            .iter()
            .map(|(team, share)| (team.clone(), share.get()))
            .collect(),
        build_url: file.build_url.clone(),
        team: TEAM.parse().expect("the team's name is a name"),
    }
}

/// The cache's options.
pub(crate) fn cache(settings: &File, plan: &FarmPlan) -> cache::server::Options {
    let file = &settings.cache;
    cache::server::Options {
        listen: plan.cache_listen,
        directory: plan.cache_directory.clone(),
        log_directory: plan.cache_log_directory.clone(),
        budget: file.bytes_max,
        free_low_water: file.free_bytes_min,
        hold: Duration::from_secs(file.hold_minutes.get().saturating_mul(60)),
        metrics_listen: file.metrics_listen.filter(|_| plan.metrics),
        salvage: false,
        limits: cache::server::Limits {
            connection_rate: file.connection_bytes_per_second_max.map(NonZeroU64::get),
            team_rate: file.team_bytes_per_second_max.map(NonZeroU64::get),
            team_in_flight: file.team_bytes_in_flight_max.get(),
            ..cache::server::Limits::default()
        },
        congestion: file.congestion,
        datagrams: transport::Datagrams::default(),
        cold: file
            .cold_bucket
            .clone()
            .map(|bucket| cache::cold::ColdOptions {
                bucket,
                endpoint: file.cold_endpoint.clone(),
                region: file.cold_region.clone(),
                prefix: file.cold_prefix.clone(),
                keep: days(file.cold_keep_days),
            }),
    }
}

fn days(days: NonZeroU64) -> Duration {
    Duration::from_secs(days.get().saturating_mul(24 * 60 * 60))
}

/// The options of a worker with its data and name; what builds must not see is for the caller to say.
///
/// # Errors
///
/// If this program cannot find itself, which it has to start again for every phase.
pub(crate) fn worker(
    settings: &File,
    (directory, name): (&Path, WorkerName),
    coordinator: SocketAddr,
) -> Result<worker::Options, CommandError> {
    let file = &settings.worker;
    let program = env::current_exe().context("failed to find this program's own file");
    Ok(worker::Options {
        coordinator,
        name,
        slots: file.slots.get(),
        labels: file.labels.clone(),
        isolation: file.isolation,
        directory: directory.to_owned(),
        program: program.map_err(CommandError::farm)?,
        hidden: Vec::new(),
        base_salt: file.base_salt.clone(),
        runtimes: file.runtimes.clone(),
        path: file.path.clone().unwrap_or_else(own_path),
        environment: passed_on(&file.pass_environment),
        commands: build_command::ALL.map(str::to_owned).into(),
        docker_socket: file.docker_socket.clone(),
        docker_projects: file.docker_projects.clone(),
        git_protocols: file.git_protocols.clone(),
        archive_protocols: file.archive_protocols.clone(),
        disk_budget: file.bytes_max,
        // A worker beside other services has their metrics served; one by itself says where.
        metrics_listen: None,
    })
}

/// Of the variables `names`, those that this process has.
fn passed_on(names: &[String]) -> BTreeMap<String, String> {
    let found = names.iter().filter_map(|name| {
        #[expect(
            clippy::disallowed_methods,
            reason = "passing variables on is a setting"
        )]
        let value = env::var(name).ok()?;
        Some((name.clone(), value))
    });
    found.collect()
}

/// The `PATH` of this process: what its owner can call, builds can call.
fn own_path() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where PATH is read"
    )]
    env::var("PATH").unwrap_or_else(|_| {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
    })
}
