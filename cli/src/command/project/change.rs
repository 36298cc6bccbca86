//! What was typed of a project changes it.

use anyhow::anyhow;
use protocol::{
    archive::ArchiveSource,
    environment::BuildEnvironment,
    git::{GitSource, origin},
    project::{BatchConfig, CacheKind, Project, ProjectArtifacts, ProjectSource},
};

use crate::{args::SaveProjectArgs, error::CommandError};

/// The project with what was typed.
///
/// # Errors
///
/// If that makes no project.
pub(super) fn changed(
    mut project: Project,
    args: &SaveProjectArgs,
) -> Result<Project, CommandError> {
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
    set_number(&mut project.build_minutes, args.build_minutes);
    set_number(&mut project.queue_minutes, args.queue_minutes);
    set_number(
        &mut project.concurrent_builds_max,
        args.concurrent_builds_max,
    );
    change_batch(&mut project.batch, args);
    if let Some(badge) = args.badge {
        project.badge = badge;
    }
    project.check().map_err(CommandError::usage)?;
    Ok(project)
}

/// Takes a number that was typed; 0 takes the one away that was there.
fn set_number(place: &mut Option<u32>, typed: Option<u32>) {
    if let Some(number) = typed {
        *place = Some(number).filter(|number| *number != 0);
    }
}

fn change_batch(batch: &mut BatchConfig, args: &SaveProjectArgs) {
    set_number(&mut batch.builds_max, args.batch_builds_max);
    set_number(&mut batch.minutes, args.batch_timeout);
    let combine = args.batch_combine_artifacts;
    batch.combine_artifacts = combine.unwrap_or(batch.combine_artifacts);
    batch.reports = args.batch_reports.unwrap_or(batch.reports);
    if !args.batch_compute_types.is_empty() {
        let types = args.batch_compute_types.iter();
        let types = types.filter(|kind| !kind.is_empty());
        batch.compute_types = types.cloned().collect();
    }
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
        (Some(url), source @ (ProjectSource::Upload | ProjectSource::Archive(_))) => {
            *source = ProjectSource::Git(GitSource::head_of(url.clone()));
        }
        (None, _) => {}
    }
    if let Some(url) = &args.source_archive {
        if let ProjectSource::Archive(before) = &project.source
            && before.sha256.is_some()
            && args.source_version.is_none()
        {
            let error = anyhow!("the SHA-256 of the project is that of another archive");
            return Err(CommandError::usage(error).hint(
                "say `--source-version SHA256` for the new one, or an empty one for any archive",
            ));
        }
        project.source = ProjectSource::Archive(ArchiveSource {
            url: url.clone(),
            sha256: None,
        });
    }
    if let (ProjectSource::Archive(archive), Some(version)) =
        (&mut project.source, &args.source_version)
    {
        archive.sha256 = Some(version.clone()).filter(|version| !version.is_empty());
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
    } else if names_repository(args, &project.source) {
        let error = anyhow!("the source of project `{}` is no repository", project.name);
        return Err(CommandError::usage(error)
            .hint("`--git URL` names a repository; an archive has `--source-version` only"));
    }
    change_secondary_sources(project, args)
}

fn change_secondary_sources(
    project: &mut Project,
    args: &SaveProjectArgs,
) -> Result<(), CommandError> {
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
fn names_repository(args: &SaveProjectArgs, source: &ProjectSource) -> bool {
    let has_version = matches!(source, ProjectSource::Archive(_));
    (args.source_version.is_some() && !has_version)
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
