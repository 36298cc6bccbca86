//! What a build is made of: what was submitted, and what its project says where nothing was.

use std::{collections::BTreeMap, time::Duration};

use buildspec::{SecretName, SecretStore};
use protocol::{
    archive::ArchiveSource,
    build::Phase,
    git::{GitCredential, GitSource, credential_variable},
    graph::{Edge, JobGraph, JobNode, OutcomeSet, UnitNode},
    job::{FetchSources, PhaseCommands, Task},
    message::{Refusal, client::SubmitBuild},
    project::{CacheKind, INLINE_BUILDSPEC, Project, ProjectSource, Recipe},
    secret::SecretRef,
};
use scheduler::{Origin, Terms};

use super::{plan::BUILDSPEC, refusal};

/// What the build is planned by: what was submitted goes over what the project says.
pub(super) fn recipe(build: &SubmitBuild, project: &Project) -> Result<Recipe, Refusal> {
    let (path, inline) = project.buildspec();
    let given = Some(build.buildspec.as_str()).filter(|text| !text.is_empty());
    let named = Some(build.buildspec_path.as_str()).filter(|path| !path.is_empty());
    // A file that is named goes over the project's own text.
    let inline = inline.filter(|_| named.is_none() && given.is_none());
    let place = match inline {
        Some(_) => INLINE_BUILDSPEC,
        None => named.or(path).unwrap_or(BUILDSPEC),
    };
    Ok(Recipe {
        buildspec: given.or(inline).map(str::to_owned),
        buildspec_path: place.to_owned(),
        variables: build.variables.clone(),
        env: project.env.clone(),
        batch: build.batch,
        no_cache: build.no_cache || project.cache.kind == CacheKind::None,
        restrictions: project.batch.clone(),
        git_credentials: logins(credentials(project)?),
        environment: project.environment.clone(),
        artifacts: project.artifacts.clone(),
    })
}

/// Those that are names and passwords: keys are of no use to git inside a build.
fn logins(credentials: Vec<GitCredential>) -> Vec<GitCredential> {
    let all = credentials.into_iter();
    all.filter(|of| of.url.starts_with("https://")).collect()
}

/// The credentials of a project's repositories.
pub(super) fn credentials(project: &Project) -> Result<Vec<GitCredential>, Refusal> {
    let primary = match &project.source {
        ProjectSource::Git(git) => Some((None, git)),
        ProjectSource::Upload | ProjectSource::Archive(_) => None,
    };
    let secondary = project.secondary_sources.iter();
    let secondary = secondary.map(|(identifier, git)| (Some(identifier.as_str()), git));
    let all = primary.into_iter().chain(secondary);
    let named = all.filter_map(|(identifier, git)| credential(identifier, git).transpose());
    named.collect()
}

/// The credential of a source; `None`: it has none.
fn credential(identifier: Option<&str>, git: &GitSource) -> Result<Option<GitCredential>, Refusal> {
    let Some(named) = &git.credential else {
        return Ok(None);
    };
    let name = SecretName::parse(named).map_err(|error| {
        refusal::invalid(format!(
            "`{named}` is no credential of `{}`: {error}",
            git.url
        ))
    })?;
    Ok(Some(GitCredential {
        url: git.url.clone(),
        secret: SecretRef {
            variable: credential_variable(identifier),
            store: SecretStore::SecretsManager,
            id: name.id,
            json_key: name.json_key,
            stage: name.version_stage,
            version: name.version_id,
        },
    }))
}

/// What the project says beside that.
pub(super) fn terms(project: &Project) -> Terms {
    let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
    Terms {
        queue: project.queue_minutes.map(minutes),
        run: project.build_minutes.map(minutes),
        concurrent_max: project.concurrent_builds_max,
        cache_shared: project.cache.namespace.clone().map(|name| (name, 0)),
        ..Terms::default()
    }
}

/// What the farm has to fetch; `None`: nothing.
pub(super) fn to_fetch(
    build: &SubmitBuild,
    project: &Project,
) -> Result<Option<FetchSources>, Refusal> {
    let secondary = project.secondary_sources.clone();
    let secrets = credentials(project)?.into_iter().map(|of| of.secret);
    if build.source.is_some() {
        let own = credential_variable(None);
        return Ok((!secondary.is_empty()).then(|| FetchSources {
            primary: None,
            archive: None,
            secondary,
            credentials: secrets.filter(|secret| secret.variable != own).collect(),
        }));
    }
    if let ProjectSource::Archive(archive) = &project.source {
        let named = build.source_version.as_ref();
        let sha256 = named
            .filter(|named| !named.is_empty())
            .or(archive.sha256.as_ref());
        let archive = ArchiveSource {
            sha256: sha256.cloned(),
            ..archive.clone()
        };
        let checked = archive.check();
        checked.map_err(|error| refusal::invalid(error.to_string()))?;
        return Ok(Some(FetchSources {
            primary: None,
            archive: Some(archive),
            secondary,
            credentials: secrets.collect(),
        }));
    }
    let ProjectSource::Git(git) = &project.source else {
        return Err(refusal::invalid(format!(
            "project `{}` has no repository or archive that the farm could fetch: name a directory, or give it \
             one with `grange project update --git URL` or `--source-archive URL`",
            project.name
        )));
    };
    let version = build.source_version.as_ref().or(git.version.as_ref());
    let git = GitSource {
        version: version.cloned(),
        ..git.clone()
    };
    git.check()
        .map_err(|error| refusal::invalid(error.to_string()))?;
    Ok(Some(FetchSources {
        primary: Some(git),
        archive: None,
        secondary,
        credentials: secrets.collect(),
    }))
}

/// Where the sources of a build come from that the farm fetches: the primary one, and the others.
pub(super) fn origins(fetch: &FetchSources) -> (Option<Origin>, BTreeMap<String, Origin>) {
    let secondary = fetch.secondary.iter();
    let secondary = secondary.map(|(name, git)| (name.clone(), Origin::of(git.clone())));
    let archive = fetch.archive.as_ref().map(|archive| GitSource {
        version: archive.sha256.clone(),
        ..GitSource::head_of(archive.url.clone())
    });
    let primary = fetch.primary.clone().or(archive);
    (primary.map(Origin::of), secondary.collect())
}

/// The jobs of a build that is not planned: all phases, of which only the first does something.
pub(super) fn fetching(fetch: &FetchSources) -> JobGraph {
    let phases = [
        Phase::DownloadSource,
        Phase::Install,
        Phase::PreBuild,
        Phase::Build,
        Phase::PostBuild,
        Phase::UploadArtifacts,
    ];
    let node = |(index, phase): (u32, Phase)| JobNode {
        unit: 0,
        phase,
        task: match index {
            0 => Task::FetchSources(Box::new(fetch.clone())),
            _ => Task::Commands(PhaseCommands::default()),
        },
        needs: index
            .checked_sub(1)
            .map(|job| Edge {
                job,
                accepts: OutcomeSet::SUCCEEDED,
            })
            .into_iter()
            .collect(),
        input: None,
    };
    JobGraph {
        units: vec![UnitNode {
            identifier: None,
            ignore_failure: false,
            shard: None,
            debug: false,
        }],
        jobs: (0..).zip(phases).map(node).collect(),
        fast_fail: false,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        blob::{Blob, TreeRef},
        build::BuildId,
        digest::Digest,
    };

    use super::*;

    fn build() -> SubmitBuild {
        SubmitBuild {
            id: BuildId(1),
            project: "shop".parse().unwrap(),
            buildspec_path: String::new(),
            buildspec: String::new(),
            source: None,
            source_version: None,
            variables: BTreeMap::new(),
            batch: false,
            reruns: BTreeMap::new(),
            no_cache: false,
            priority: 0,
            debug: false,
        }
    }

    fn project(buildspec: Option<&str>) -> Project {
        Project {
            buildspec: buildspec.map(str::to_owned),
            ..Project::new("shop".parse().unwrap())
        }
    }

    #[test]
    fn a_buildspec_that_is_given_goes_over_the_projects_and_that_over_the_file_of_the_usual_name() {
        let inline = "version: 0.2\nphases: {}\n";
        let check = |given: (&str, &str), of: Option<&str>, expected: (Option<&str>, &str)| {
            let mut build = build();
            (build.buildspec, build.buildspec_path) = (given.0.to_owned(), given.1.to_owned());
            let recipe = recipe(&build, &project(of)).unwrap();
            let found = (recipe.buildspec.as_deref(), recipe.buildspec_path.as_str());
            assert_eq!(found, expected);
        };
        check(("", ""), None, (None, "buildspec.yml"));
        check(("", ""), Some(""), (None, "buildspec.yml"));
        check(("", ""), Some("ci/a.yml"), (None, "ci/a.yml"));
        check(("", ""), Some(inline), (Some(inline), INLINE_BUILDSPEC));
        check(("", "b.yml"), Some(inline), (None, "b.yml"));
        check(("text", "b.yml"), Some("ci/a.yml"), (Some("text"), "b.yml"));
    }

    #[test]
    fn sources_that_are_fetched_bring_their_credentials_and_no_others() {
        let git = |name: Option<&str>| GitSource {
            credential: name.map(str::to_owned),
            ..GitSource::head_of("https://example.org/a".to_owned())
        };
        let mut of = project(None);
        of.source = ProjectSource::Git(git(Some("github:token")));
        of.secondary_sources
            .insert("lib".to_owned(), git(Some("lab")));
        of.secondary_sources.insert("open".to_owned(), git(None));
        let fetched = |build: &SubmitBuild| {
            let fetch = to_fetch(build, &of).unwrap().unwrap();
            let named = fetch.credentials.into_iter();
            named.map(|secret| secret.variable).collect::<Vec<_>>()
        };
        assert_eq!(fetched(&build()), ["git-credential", "git-credential:lib"]);
        let mut uploaded = build();
        let blob = || Blob {
            digest: Digest::of(b""),
            chunks: Vec::new(),
        };
        uploaded.source = Some(TreeRef {
            tree: blob(),
            attributes: blob(),
            layout: blob(),
        });
        assert_eq!(fetched(&uploaded), ["git-credential:lib"]);
        let named = credentials(&of).unwrap();
        assert_eq!(named[0].secret.json_key.as_deref(), Some("token"));
        of.source = ProjectSource::Git(git(Some("a:b:c:d")));
        assert!(credentials(&of).is_err(), "it has a stage and a version");
    }

    #[test]
    fn a_version_that_is_wanted_goes_over_the_projects_and_is_one() {
        let mut of = project(None);
        assert!(to_fetch(&build(), &of).is_err(), "there is no repository");
        let git = GitSource {
            version: Some("main".to_owned()),
            ..GitSource::head_of("https://example.org/a".to_owned())
        };
        of.source = ProjectSource::Git(git);
        let version = |wanted: Option<&str>| {
            let mut build = build();
            build.source_version = wanted.map(str::to_owned);
            let fetch = to_fetch(&build, &of).ok()??;
            fetch.primary?.version
        };
        assert_eq!(version(None).as_deref(), Some("main"));
        assert_eq!(version(Some("v1")).as_deref(), Some("v1"));
        assert_eq!(version(Some("--upload-pack=x")), None);
    }
}
