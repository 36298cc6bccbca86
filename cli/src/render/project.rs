//! How projects are shown, and their badges.

use protocol::{
    build::{Outcome, Status},
    git::GitSource,
    message::client::{ProjectDetail, ProjectSummary},
    project::{BatchConfig, BatchReports, CacheKind, ProjectArtifacts, ProjectSource},
};
use serde_json::json;

use super::{json_line, out, table::Table, text};
use crate::error::CommandError;

/// `grange project list`.
pub(crate) fn projects(projects: &[ProjectSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return projects.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["NAME", "SOURCE", "BUILDS", "SAVED", "DESCRIPTION"]);
    for project in projects {
        let repository = project.repository.clone();
        table.row([
            project.name.to_string(),
            repository.unwrap_or_else(|| "uploaded".to_owned()),
            project.builds.to_string(),
            text::at(project.saved),
            project.description.clone(),
        ]);
    }
    out::print(&table.text())
}

/// `grange project show`.
pub(crate) fn project(detail: &ProjectDetail, json: bool) -> Result<(), CommandError> {
    if json {
        return json_line(&json!({
            "project": detail.project,
            "created": detail.created,
            "saved": detail.saved,
            "builds": detail.builds,
            "cache_generation": detail.cache_generation,
        }));
    }
    let mut text = String::new();
    for (name, value) in rows(detail) {
        text += &format!("{name:<18}{value}\n");
    }
    out::print(&text)
}

/// What there is to say of a project, a line each.
fn rows(detail: &ProjectDetail) -> Vec<(&'static str, String)> {
    let project = &detail.project;
    let mut rows = vec![("name", project.name.to_string())];
    let mut row = |name, value: String| rows.push((name, value));
    if !project.description.is_empty() {
        row("description", project.description.clone());
    }
    row("source", place_of(&project.source));
    for (identifier, git) in &project.secondary_sources {
        row(
            "secondary source",
            format!("{identifier}: {}", repository(git)),
        );
    }
    let (path, inline) = project.buildspec();
    row(
        "buildspec",
        match (path, inline) {
            (Some(path), _) => path.to_owned(),
            (None, Some(text)) => format!("its own, {} lines", text.lines().count()),
            (None, None) => "buildspec.yml".to_owned(),
        },
    );
    for (kind, variables) in project.env.by_type() {
        for (name, value) in variables {
            row("variable", format!("{name}={value} ({kind})"));
        }
    }
    for (key, value) in project.environment.asked() {
        row("asks for", format!("{key} {value}"));
    }
    if project.artifacts != ProjectArtifacts::default() {
        row("artifacts", artifacts(&project.artifacts));
    }
    let cache = match (project.cache.kind, &project.cache.namespace) {
        (CacheKind::None, _) => "none".to_owned(),
        (CacheKind::Farm, None) => "the farm's".to_owned(),
        (CacheKind::Farm, Some(name)) => format!("the farm's, shared as `{name}`"),
    };
    row(
        "cache",
        format!("{cache}; made invalid {} times", detail.cache_generation),
    );
    let limits = [
        ("build minutes", project.build_minutes),
        ("queue minutes", project.queue_minutes),
        ("builds at once", project.concurrent_builds_max),
        ("builds in a batch", project.batch.builds_max),
        ("batch minutes", project.batch.minutes),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            row(name, limit.to_string());
        }
    }
    rows.extend(batch_rows(&project.batch));
    let mut row = |name, value: String| rows.push((name, value));
    row("badge", if project.badge { "yes" } else { "no" }.to_owned());
    row("builds", detail.builds.to_string());
    row("saved", text::at(detail.saved));
    rows
}

/// What there is to say of what becomes of batches.
fn batch_rows(batch: &BatchConfig) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if batch.combine_artifacts {
        rows.push(("batch artifacts", "combined".to_owned()));
    }
    if batch.reports != BatchReports::default() {
        rows.push(("batch reports", batch.reports.as_str().to_owned()));
    }
    if !batch.compute_types.is_empty() {
        let types: Vec<_> = batch.compute_types.iter().cloned().collect();
        rows.push(("compute types", types.join(", ")));
    }
    rows
}

/// Where a source is.
fn place_of(source: &ProjectSource) -> String {
    match source {
        ProjectSource::Upload => "uploaded".to_owned(),
        ProjectSource::Git(git) => repository(git),
        ProjectSource::Archive(archive) => match &archive.sha256 {
            Some(sum) => format!("{} with SHA-256 {sum}", archive.url),
            None => archive.url.clone(),
        },
    }
}

fn artifacts(of: &ProjectArtifacts) -> String {
    let name = of.name.as_deref().unwrap_or("as the project");
    let mut text = format!("called {name}");
    if of.override_name {
        text += " unless the buildspec says otherwise";
    }
    if !of.secondary.is_empty() {
        let secondary: Vec<_> = of.secondary.iter().map(String::as_str).collect();
        text += &format!("; secondary ones: {}", secondary.join(", "));
    }
    text
}

fn repository(git: &GitSource) -> String {
    let mut text = git.url.clone();
    if let Some(version) = &git.version {
        text += &format!(" at {version}");
    }
    if let Some(depth) = git.shallow() {
        text += &format!(", {depth} commits deep");
    }
    if git.submodules {
        text += ", with submodules";
    }
    if let Some(credential) = &git.credential {
        text += &format!(", let in by `{credential}`");
    }
    if git.insecure_ssl {
        text += ", certificate not checked";
    }
    text
}

/// `grange project badge`.
pub(crate) fn badge(status: Option<Status>) -> Result<(), CommandError> {
    out::print(&svg(status))
}

/// The badge as CodeBuild draws it: two fields, `build` and how it ended.
fn svg(status: Option<Status>) -> String {
    let (word, color) = match status {
        None => ("unknown", "#9f9f9f"),
        Some(Status::Queued | Status::InProgress) => ("in progress", "#007ec6"),
        Some(Status::Ended(Outcome::Succeeded)) => ("passing", "#4c1"),
        Some(Status::Ended(Outcome::Stopped | Outcome::Skipped)) => ("stopped", "#9f9f9f"),
        Some(Status::Ended(Outcome::Failed | Outcome::Fault | Outcome::TimedOut)) => {
            ("failing", "#e05d44")
        }
    };
    const LEFT: usize = 40;
    // About what a letter takes at this size.
    let right = 7 * word.len() + 10;
    let (width, middle) = (LEFT + right, LEFT + right / 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" \
         aria-label=\"build: {word}\">\n\
         <rect width=\"{LEFT}\" height=\"20\" fill=\"#555\"/>\n\
         <rect x=\"{LEFT}\" width=\"{right}\" height=\"20\" fill=\"{color}\"/>\n\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,sans-serif\" font-size=\"11\">\n\
         <text x=\"20\" y=\"14\">build</text>\n\
         <text x=\"{middle}\" y=\"14\">{word}</text>\n\
         </g>\n\
         </svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_says_how_the_last_build_stands() {
        for (status, word) in [
            (None, "unknown"),
            (Some(Status::InProgress), "in progress"),
            (Some(Status::Ended(Outcome::Succeeded)), "passing"),
            (Some(Status::Ended(Outcome::TimedOut)), "failing"),
            (Some(Status::Ended(Outcome::Stopped)), "stopped"),
        ] {
            let svg = svg(status);
            assert!(svg.starts_with("<svg ") && svg.contains(&format!(">{word}</text>")));
        }
    }
}
