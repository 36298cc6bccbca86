//! `grange buildspec`: what can be known of a buildspec without a farm.

mod init;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use buildspec::{BuildSpec, Diagnostic, Phases, Place, PlanRequest, Severity, same_work};
use protocol::message::client::BUILDSPEC_BYTES_MAX;

use crate::{
    args::buildspec::{BuildspecCommand, CheckArgs, PlanArgs},
    command::source::read_bounded,
    error::{CommandError, exit},
    render,
};

/// Runs a command; the exit code is 2 if a buildspec has mistakes.
///
/// # Errors
///
/// If the command could not do what was asked.
pub(super) fn run(command: &BuildspecCommand) -> Result<ExitCode, CommandError> {
    match command {
        BuildspecCommand::Check(args) => check(args),
        BuildspecCommand::Plan(args) => plan(args).map(|()| ExitCode::SUCCESS),
        BuildspecCommand::Init(args) => init::run(args).map(|()| ExitCode::SUCCESS),
    }
}

/// A file that was read, and what is to be said about it.
struct Read {
    text: String,
    spec: Option<BuildSpec>,
    diagnostics: Vec<Diagnostic>,
}

/// Reads a file. That there is none, or no text in it, is a remark like others.
fn read(path: &Path) -> Read {
    let failed = |diagnostic| Read {
        text: String::new(),
        spec: None,
        diagnostics: vec![diagnostic],
    };
    let bytes = match read_bounded(path, BUILDSPEC_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return failed(unreadable(path, &error)),
    };
    match buildspec::text_of(&bytes) {
        Err(error) => failed(error.diagnostic()),
        Ok(text) => {
            let parsed = buildspec::parse(text);
            Read {
                text: text.to_owned(),
                spec: parsed.spec,
                diagnostics: parsed.diagnostics,
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let diagnostic = Diagnostic::error(Place::START, format!("failed to read it: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => diagnostic.with_codebuild(format!(
            "YAML_FILE_ERROR: stat {}: no such file or directory",
            path.display()
        )),
        _ => diagnostic,
    }
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    let of_kind = diagnostics.iter().filter(|d| d.severity == severity);
    of_kind.count()
}

fn check(args: &CheckArgs) -> Result<ExitCode, CommandError> {
    let mut errors = 0;
    for file in &args.files {
        let read = read(file);
        errors += count(&read.diagnostics, Severity::Error);
        let path = file.display().to_string();
        if args.json {
            render::checked_json(&path, &read.diagnostics)?;
        } else {
            render::checked(&path, &read.text, &read.diagnostics)?;
        }
    }
    Ok(match errors {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::USAGE),
    })
}

fn plan(args: &PlanArgs) -> Result<(), CommandError> {
    let path = args.file.display().to_string();
    let Read {
        text,
        spec,
        diagnostics,
    } = read(&args.file);
    render::remarks(&path, &text, &diagnostics);
    let Some(mut spec) = spec else {
        return Err(mistaken(&path, count(&diagnostics, Severity::Error)));
    };
    let batch = spec.batch.is_some() && !args.no_batch;
    let buildspecs = if batch {
        of_tasks(&spec, &args.source)?
    } else {
        BTreeMap::new()
    };
    spec = shown(spec);
    let request = PlanRequest {
        batch,
        buildspecs,
        ..PlanRequest::default()
    };
    match buildspec::plan(&spec, &request) {
        Ok(graph) => {
            let same = same_work(&graph);
            render::plan(&graph, &same, args.format())
        }
        Err(error) => {
            render::remarks(&path, &text, &error.diagnostics());
            let error = anyhow::Error::new(error).context(format!("`{path}` cannot be planned"));
            Err(CommandError::usage(error))
        }
    }
}

fn mistaken(path: &str, errors: usize) -> CommandError {
    let count = match errors {
        1 => "a mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    CommandError::usage(anyhow!("`{path}` has {count}"))
}

/// The same without what only a run has to have: a shell that is there.
fn shown(spec: BuildSpec) -> BuildSpec {
    BuildSpec {
        windows_shell: None,
        ..spec
    }
}

/// The buildspecs that batch tasks name. In place of one that is not there stands one whose phases have no
/// commands, so that the rest can be shown.
fn of_tasks(spec: &BuildSpec, source: &Path) -> Result<BTreeMap<String, BuildSpec>, CommandError> {
    let mut buildspecs = BTreeMap::new();
    let batch = spec.batch.iter();
    for path in batch.flat_map(|batch| batch.tasks.buildspecs()) {
        let file: PathBuf = source.join(&path);
        if !file.exists() {
            render::note(&format!(
                "`{path}` is not in `{}`, so the commands of its tasks are not known",
                source.display()
            ));
            let unknown = BuildSpec {
                phases: Some(Phases::default()),
                ..shown(spec.clone())
            };
            let unknown = BuildSpec {
                artifacts: None,
                cache: None,
                variables: BTreeMap::new(),
                ..unknown
            };
            buildspecs.insert(path, unknown);
            continue;
        }
        let read = read(&file);
        render::remarks(&path, &read.text, &read.diagnostics);
        let errors = count(&read.diagnostics, Severity::Error);
        let own = read.spec.ok_or_else(|| mistaken(&path, errors))?;
        buildspecs.insert(path, shown(own));
    }
    Ok(buildspecs)
}
