//! `grange project …`: what builds of a repository have in common is said once.

mod change;

use std::path::Path;

use anyhow::{Context as _, anyhow};
use protocol::{
    build::Status,
    message::client::{ClientReply, ClientRequest, ProjectDetail},
    name::ProjectName,
    project::Project,
};

use self::change::changed;
use crate::{
    args::{FarmArgs, OneProjectArgs, ProjectCommand, SaveProjectArgs},
    command::{
        Context,
        read::{ask, expect_done},
        source::read_bounded,
    },
    error::CommandError,
    farm::{Farm, unexpected},
    reach::Purpose,
    render,
};

/// How long the file of a project may be, in bytes: twice what the longest buildspec in one takes.
const FILE_BYTES_MAX: usize = 2 * protocol::message::client::BUILDSPEC_BYTES_MAX;

/// Runs one of them.
///
/// # Errors
///
/// If the farm cannot be reached or refuses, or what was typed makes no project.
pub(super) async fn run(command: ProjectCommand, context: &Context) -> Result<(), CommandError> {
    match command {
        ProjectCommand::Create(args) => create(&args, context).await,
        ProjectCommand::Update(args) => update(&args, context).await,
        ProjectCommand::Show(args) => show(&args, context).await,
        ProjectCommand::List(args) => {
            match ask(&ClientRequest::Projects, &args.farm, context).await? {
                ClientReply::Projects(projects) => render::projects(&projects, args.json),
                other => Err(unexpected(&other)),
            }
        }
        ProjectCommand::Delete { project, farm } => {
            let request = ClientRequest::DeleteProject(project);
            expect_done(&ask(&request, &farm, context).await?)
        }
        ProjectCommand::Badge { project, farm } => badge(&project, &farm, context).await,
    }
}

async fn create(args: &SaveProjectArgs, context: &Context) -> Result<(), CommandError> {
    let project = match &args.file {
        Some(file) => from_file(file, &args.project)?,
        None => Project::new(args.project.clone()),
    };
    let request = ClientRequest::SaveProject {
        project: Box::new(changed(project, args)?),
        is_there: false,
    };
    expect_done(&ask(&request, &args.farm, context).await?)
}

async fn update(args: &SaveProjectArgs, context: &Context) -> Result<(), CommandError> {
    context
        .with_farm(&args.farm, Purpose::Ask, async |reached| {
            let known = known(&reached.farm, &args.project).await?;
            let known = known.ok_or_else(|| unknown(&args.project))?;
            let project = match &args.file {
                Some(file) => from_file(file, &args.project)?,
                None => known.project,
            };
            let request = ClientRequest::SaveProject {
                project: Box::new(changed(project, args)?),
                is_there: true,
            };
            expect_done(&reached.farm.ask(&request).await?)
        })
        .await
}

async fn show(args: &OneProjectArgs, context: &Context) -> Result<(), CommandError> {
    context
        .with_farm(&args.read.farm, Purpose::Ask, async |reached| {
            let known = known(&reached.farm, &args.project).await?;
            let known = known.ok_or_else(|| unknown(&args.project))?;
            render::project(&known, args.read.json)
        })
        .await
}

async fn badge(
    project: &ProjectName,
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    context
        .with_farm(farm, Purpose::Ask, async |reached| {
            let known = known(&reached.farm, project).await?;
            let known = known.ok_or_else(|| unknown(project))?;
            if !known.project.badge {
                let error = anyhow!("project `{project}` has no badge");
                let hint = format!("`grange project update {project} --badge yes` gives it one");
                return Err(CommandError::usage(error).hint(hint));
            }
            render::badge(last_status(&reached.farm, project).await?)
        })
        .await
}

/// How the last build of a project stands; `None`: there is none.
async fn last_status(farm: &Farm, project: &ProjectName) -> Result<Option<Status>, CommandError> {
    let request = ClientRequest::Builds {
        project: Some(project.clone()),
        limit: 1,
    };
    match farm.ask(&request).await? {
        ClientReply::Builds(builds) => Ok(builds.first().map(|build| build.status)),
        other => Err(unexpected(&other)),
    }
}

/// What the farm knows of a project; `None`: nobody has made it.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(super) async fn known(
    farm: &Farm,
    project: &ProjectName,
) -> Result<Option<ProjectDetail>, CommandError> {
    match farm.ask(&ClientRequest::Project(project.clone())).await? {
        ClientReply::Project(known) => Ok(known.map(|known| *known)),
        other => Err(unexpected(&other)),
    }
}

fn unknown(project: &ProjectName) -> CommandError {
    let error = anyhow!("no project is called `{project}`");
    CommandError::usage(error)
        .hint("`grange project list` lists them, `grange project create` makes one")
}

/// `grange cache invalidate`.
///
/// # Errors
///
/// If the farm cannot be reached, or knows neither the project nor a build of it.
pub(super) async fn invalidate_caches(
    project: ProjectName,
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    let request = ClientRequest::InvalidateCaches(project);
    expect_done(&ask(&request, farm, context).await?)
}

/// Reads a project from a file; its name may be left out there.
fn from_file(path: &Path, name: &ProjectName) -> Result<Project, CommandError> {
    let shown = path.display();
    let bytes = read_bounded(path, FILE_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("failed to read the project `{shown}`"));
    let text = String::from_utf8(bytes.map_err(CommandError::usage)?)
        .with_context(|| format!("the project `{shown}` is not text in UTF-8"))
        .map_err(CommandError::usage)?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let project = if is_json {
        parse_json(&text, name)
    } else {
        parse_toml(&text, name)
    };
    let project = project.with_context(|| format!("`{shown}` is no project"));
    let project = project.map_err(CommandError::usage)?;
    if project.name != *name {
        let error = anyhow!(
            "`{shown}` is of project `{}`, not of `{name}`",
            project.name
        );
        return Err(CommandError::usage(error));
    }
    Ok(project)
}

fn parse_json(text: &str, name: &ProjectName) -> Result<Project, anyhow::Error> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    if let Some(object) = value.as_object_mut() {
        let name = serde_json::Value::String(name.to_string());
        object.entry("name").or_insert(name);
    }
    Ok(serde_json::from_value(value)?)
}

fn parse_toml(text: &str, name: &ProjectName) -> Result<Project, anyhow::Error> {
    let mut table: toml::Table = toml::from_str(text)?;
    let name = toml::Value::String(name.to_string());
    table.entry("name").or_insert(name);
    Ok(table.try_into()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use protocol::{
        archive::ArchiveSource,
        project::{CacheKind, ProjectSource},
    };

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(words: &str) -> SaveProjectArgs {
        let all = ["grange", "project", "update", "shop"].into_iter();
        let cli = Cli::try_parse_from(all.chain(words.split_whitespace())).unwrap();
        match cli.command {
            Command::Project(command) => match *command {
                ProjectCommand::Update(args) => args,
                _ => panic!("another command"),
            },
            _ => panic!("another command"),
        }
    }

    fn shop() -> Project {
        Project::new("shop".parse().unwrap())
    }

    #[test]
    fn what_is_not_typed_stays_and_a_zero_takes_a_limit_away() {
        let words = "--git https://example.org/a --source-version main --depth 1 --env A=1 \
            --build-minutes 10 --concurrent-builds-max 2 --secondary lib=https://example.org/l";
        let made = changed(shop(), &typed(words)).unwrap();
        assert_eq!(changed(made.clone(), &typed("")).unwrap(), made);
        let words = "--secrets-manager A=s --build-minutes 0 --depth 0 --secondary lib=";
        let updated = changed(made, &typed(words)).unwrap();
        assert!(updated.env.variables.is_empty(), "A has another type now");
        assert_eq!(updated.env.secrets_manager["A"], "s");
        assert_eq!(
            (updated.build_minutes, updated.concurrent_builds_max),
            (None, Some(2))
        );
        assert!(updated.secondary_sources.is_empty());
        let ProjectSource::Git(git) = updated.source else {
            panic!("it has a repository");
        };
        assert_eq!((git.version.as_deref(), git.depth), (Some("main"), None));
    }

    #[test]
    fn a_version_is_one_of_a_repository() {
        assert!(changed(shop(), &typed("--source-version main")).is_err());
        assert!(changed(shop(), &typed("--secondary-version lib=main")).is_err());
        assert!(changed(shop(), &typed("--git ext::sh")).is_err());
        assert!(changed(shop(), &typed("--git-credential x")).is_err());
        let over_http = "--git http://example.org/a --git-credential x";
        assert!(changed(shop(), &typed(over_http)).is_err());
    }

    #[test]
    fn an_archive_takes_the_place_of_a_repository_and_has_a_digest() {
        let git = changed(shop(), &typed("--git https://example.org/a")).unwrap();
        let sum = "0f".repeat(32);
        let words = format!("--source-archive https://example.org/a.zip --source-version {sum}");
        let made = changed(git, &typed(&words)).unwrap();
        let expected = ArchiveSource {
            url: "https://example.org/a.zip".to_owned(),
            sha256: Some(sum),
        };
        assert_eq!(made.source, ProjectSource::Archive(expected));
        assert!(changed(made.clone(), &typed("--depth 1")).is_err());
        assert!(changed(made.clone(), &typed("--source-version main")).is_err());
        let git = changed(made, &typed("--git https://example.org/a")).unwrap();
        assert!(matches!(git.source, ProjectSource::Git(_)));
        assert!(changed(shop(), &typed("--source-archive s3://b/a.zip")).is_err());
        let pinned = changed(shop(), &typed(&words)).unwrap();
        let other = "--source-archive https://example.org/b.zip";
        assert!(changed(pinned.clone(), &typed(other)).is_err());
        let any = typed(&format!("{other} --source-version="));
        let ProjectSource::Archive(archive) = changed(pinned, &any).unwrap().source else {
            panic!("it is an archive");
        };
        assert_eq!(archive.sha256, None);
    }

    #[test]
    fn a_credential_is_named_changed_and_taken_away() {
        let words = "--git https://example.org/a --git-credential app/github:token --insecure-ssl yes \
            --secondary lib=git@example.org:l --secondary-credential lib=key";
        let made = changed(shop(), &typed(words)).unwrap();
        let credentials = |of: &Project| {
            let ProjectSource::Git(git) = &of.source else {
                panic!("it has a repository");
            };
            let lib = of.secondary_sources["lib"].credential.clone();
            (git.credential.clone(), git.insecure_ssl, lib)
        };
        let named = Some("app/github:token".to_owned());
        assert_eq!(credentials(&made), (named, true, Some("key".to_owned())));
        let words = "--git-credential= --insecure-ssl no --secondary-credential lib=";
        let updated = changed(made, &typed(words)).unwrap();
        assert_eq!(credentials(&updated), (None, false, None));
    }

    #[test]
    fn a_file_says_all_of_a_project_in_toml_or_json_and_a_typo_is_named() {
        let name = "shop".parse().unwrap();
        let toml = "badge = true\nbuild_minutes = 10\n[source.git]\nurl = 'https://example.org/a'\n\
            [env.variables]\nA = '1'\n[cache]\ntype = 'NO_CACHE'\n";
        let of_toml = parse_toml(toml, &name).unwrap();
        let json = r#"{"badge": true, "build_minutes": 10, "source": {"git": {"url": "https://example.org/a"}},
            "env": {"variables": {"A": "1"}}, "cache": {"type": "NO_CACHE"}}"#;
        assert_eq!(parse_json(json, &name).unwrap(), of_toml);
        assert_eq!(of_toml.cache.kind, CacheKind::None);
        let typo = parse_toml("bagde = true", &name).unwrap_err();
        assert!(format!("{typo:#}").contains("bagde"), "{typo:#}");
    }
}
