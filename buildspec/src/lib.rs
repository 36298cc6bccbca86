//! Buildspecs: from text to a typed buildspec, with every mistake found and explained in one pass, and
//! from that to the graph of jobs that a build becomes.
//!
//! The crate is pure: no clock, network, disk or tasks. It decides what a buildspec means; how commands
//! run is the worker's affair, when is the scheduler's.

mod advice;
mod diagnostic;
mod input;
mod keys;
mod parse;
mod plan;
mod reader;
mod spec;
mod syntax;
mod yaml;

pub use crate::{
    diagnostic::{Diagnostic, Place, Severity, render},
    input::{InputError, text_of},
    parse::{Parsed, parse},
    plan::{PlanError, PlanRequest, TaskMistake, plan, same_work},
    spec::{
        Artifacts, Batch, BatchTask, BuildSpec, Cache, CacheAction, Fanout, Matrix, OnFailure,
        PhaseSpec, Phases, Proxy, Published, ReportFormat, ReportGroup, Secret, SecretName,
        SecretNameError, SecretStore, TaskEnvironment, Tasks, Version, WindowsShell,
    },
};
