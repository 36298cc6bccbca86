//! `grange project …`: what builds of a repository have in common is said once.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use protocol::{
    build::Status,
    environment::BuildEnvironment,
    git::{GitSource, origin},
    message::client::{ClientReply, ClientRequest, ProjectDetail},
    name::ProjectName,
    project::{CacheKind, Project, ProjectArtifacts, ProjectSource},
};

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

/// The project with what was typed.
fn changed(mut project: Project, args: &SaveProjectArgs) -> Result<Project, CommandError> {
    if let Some(description) = &args.description {
        project.description.clone_from(description);
    }
    change_sources(&mut project, args)?;
    if let Some(buildspec) = &args.buildspec {
        project.buildspec = Some(buildspec.clone()).filter(|text| !text.is_empty());
    }
    for name in &args.unset {
        project.env.remove(name);
    }
    let of_types: [(_, fn(&mut Project) -> &mut _); 3] = [
        (&args.variables, |of| &mut of.env.variables),
        (&args.parameter_store, |of| &mut of.env.parameter_store),
        (&args.secrets_manager, |of| &mut of.env.secrets_manager),
    ];
    for (typed, variables) in of_types {
        for (name, value) in typed {
            project.env.remove(name);
            variables(&mut project).insert(name.clone(), value.clone());
        }
    }
    change_environment(&mut project.environment, args);
    change_artifacts(&mut project.artifacts, args);
    if let Some(cache) = args.cache {
        project.cache.kind = if cache {
            CacheKind::Farm
        } else {
            CacheKind::None
        };
    }
    if let Some(namespace) = &args.cache_namespace {
        project.cache.namespace = if namespace.is_empty() {
            None
        } else {
            Some(namespace.parse().map_err(CommandError::usage)?)
        };
    }
    let set = |place: &mut Option<u32>, typed: Option<u32>| {
        if let Some(number) = typed {
            *place = Some(number).filter(|number| *number != 0);
        }
    };
    set(&mut project.build_minutes, args.build_minutes);
    set(&mut project.queue_minutes, args.queue_minutes);
    set(
        &mut project.concurrent_builds_max,
        args.concurrent_builds_max,
    );
    set(&mut project.batch.builds_max, args.batch_builds_max);
    if !args.batch_compute_types.is_empty() {
        let types = args
            .batch_compute_types
            .iter()
            .filter(|kind| !kind.is_empty());
        project.batch.compute_types = types.cloned().collect();
    }
    if let Some(badge) = args.badge {
        project.badge = badge;
    }
    project.check().map_err(CommandError::usage)?;
    Ok(project)
}

fn change_artifacts(artifacts: &mut ProjectArtifacts, args: &SaveProjectArgs) {
    if let Some(name) = &args.artifact_name {
        artifacts.name = Some(name.clone()).filter(|name| !name.is_empty());
    }
    artifacts.override_name = args
        .override_artifact_name
        .unwrap_or(artifacts.override_name);
    if !args.secondary_artifacts.is_empty() {
        let all = args.secondary_artifacts.iter();
        artifacts.secondary = all.filter(|of| !of.is_empty()).cloned().collect();
    }
}

fn change_environment(environment: &mut BuildEnvironment, args: &SaveProjectArgs) {
    let set = |place: &mut Option<String>, typed: &Option<String>| {
        if let Some(text) = typed {
            *place = Some(text.clone()).filter(|text| !text.is_empty());
        }
    };
    set(&mut environment.image, &args.environment_image);
    set(&mut environment.system, &args.environment_type);
    set(&mut environment.compute_type, &args.compute_type);
    set(&mut environment.fleet, &args.fleet);
    environment.privileged_mode = args.privileged.unwrap_or(environment.privileged_mode);
}

fn change_sources(project: &mut Project, args: &SaveProjectArgs) -> Result<(), CommandError> {
    if args.upload {
        project.source = ProjectSource::Upload;
    }
    match (&args.git, &mut project.source) {
        (Some(url), ProjectSource::Git(git)) => {
            if origin(&git.url) != origin(url) {
                // Who is trusted there is not trusted here.
                git.insecure_ssl = false;
                if let Some(credential) = git
                    .credential
                    .as_ref()
                    .filter(|_| args.git_credential.is_none())
                {
                    let error =
                        anyhow!("the credential `{credential}` lets git in at another address");
                    return Err(CommandError::usage(error).hint(
                        "say `--git-credential NAME` for the new one, or an empty name for none",
                    ));
                }
            }
            git.url.clone_from(url);
        }
        (Some(url), source @ ProjectSource::Upload) => {
            *source = ProjectSource::Git(GitSource::head_of(url.clone()));
        }
        (None, _) => {}
    }
    if let ProjectSource::Git(git) = &mut project.source {
        if let Some(version) = &args.source_version {
            git.version = Some(version.clone()).filter(|version| !version.is_empty());
        }
        git.depth = args.depth.or(git.depth).filter(|depth| *depth != 0);
        git.submodules = args.submodules.unwrap_or(git.submodules);
        git.insecure_ssl = args.insecure_ssl.unwrap_or(git.insecure_ssl);
        if let Some(credential) = &args.git_credential {
            git.credential = Some(credential.clone()).filter(|name| !name.is_empty());
        }
    } else if names_repository(args) {
        let error = anyhow!("the source of project `{}` is uploaded", project.name);
        return Err(CommandError::usage(error).hint("`--git URL` names a repository"));
    }
    for (identifier, url) in &args.secondary {
        if url.is_empty() {
            project.secondary_sources.remove(identifier);
        } else {
            let git = GitSource::head_of(url.clone());
            project.secondary_sources.insert(identifier.clone(), git);
        }
    }
    for (identifier, version) in &args.secondary_versions {
        let git = secondary(project, identifier)?;
        git.version = Some(version.clone()).filter(|version| !version.is_empty());
    }
    for (identifier, credential) in &args.secondary_credentials {
        let git = secondary(project, identifier)?;
        git.credential = Some(credential.clone()).filter(|name| !name.is_empty());
    }
    for (identifier, is_insecure) in &args.secondary_insecure_ssl {
        secondary(project, identifier)?.insecure_ssl = *is_insecure;
    }
    Ok(())
}

/// Whether something was typed that only a repository has.
fn names_repository(args: &SaveProjectArgs) -> bool {
    args.source_version.is_some()
        || args.depth.is_some()
        || args.submodules.is_some()
        || args.insecure_ssl.is_some()
        || args.git_credential.is_some()
}

fn secondary<'a>(
    project: &'a mut Project,
    identifier: &str,
) -> Result<&'a mut GitSource, CommandError> {
    let known = project.secondary_sources.get_mut(identifier);
    known.ok_or_else(|| {
        let error = anyhow!("there is no secondary source `{identifier}`");
        CommandError::usage(error).hint("`--secondary ID=URL` adds one")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

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
