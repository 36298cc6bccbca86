//! Tests of planning variables that are secrets.

use protocol::secret::{SecretRef, SecretStore};

use super::*;

#[test]
fn a_secret_is_named_to_the_unit_unless_the_request_has_its_value() {
    let spec = file(
        "",
        "env:\n  variables: {LOGIN: of the file}\n  parameter-store: {LOGIN: /x}\n  secrets-manager: \
         {TOKEN: 'y:key:AWSPREVIOUS', OTHER: 'y:::v1'}\n",
    );
    let mut request = PlanRequest::default();
    request.variables.insert("OTHER".to_owned(), "t".to_owned());
    let graph = plan(&spec, &request).unwrap();
    let Task::DownloadSource {
        variables, secrets, ..
    } = &graph.jobs[0].task
    else {
        panic!()
    };
    assert_eq!(variables["OTHER"], "t");
    let named = |variable: &str, store, id: &str| SecretRef {
        variable: variable.to_owned(),
        store,
        id: id.to_owned(),
        json_key: None,
        stage: None,
        version: None,
    };
    let token = SecretRef {
        json_key: Some("key".to_owned()),
        stage: Some("AWSPREVIOUS".to_owned()),
        ..named("TOKEN", SecretStore::SecretsManager, "y")
    };
    let login = named("LOGIN", SecretStore::ParameterStore, "/x");
    assert_eq!(*secrets, [login, token]);
}

#[test]
fn git_in_the_build_has_the_credentials_of_the_project_only_where_the_file_says_so() {
    let request = PlanRequest {
        git_credentials: vec![GitCredential {
            url: "https://example.org/a".to_owned(),
            secret: SecretRef {
                variable: "git-credential".to_owned(),
                store: SecretStore::SecretsManager,
                id: "github".to_owned(),
                json_key: None,
                stage: None,
                version: None,
            },
        }],
        ..PlanRequest::default()
    };
    let given = |env: &str| {
        let graph = plan(&file("", env), &request).unwrap();
        let Task::DownloadSource {
            secrets, preface, ..
        } = graph.jobs[0].task.clone()
        else {
            panic!()
        };
        let secrets: Vec<_> = secrets.into_iter().map(|secret| secret.variable).collect();
        (secrets, preface.git_credentials)
    };
    let yes = given("env:\n  secrets-manager: {TOKEN: y}\n  git-credential-helper: yes\n");
    assert_eq!(yes.0, ["TOKEN", "git-credential"]);
    assert_eq!(yes.1["git-credential"], "https://example.org/a");
    for env in ["", "env:\n  git-credential-helper: no\n"] {
        assert_eq!(given(env), (Vec::new(), BTreeMap::new()));
    }
}

#[test]
fn more_secrets_than_a_build_may_have_are_refused_at_the_first_of_them() {
    let lines = |count: usize| -> String {
        let lines = (0..count).map(|at| format!("    S{at:03}: s\n"));
        lines.collect()
    };
    let file = |count| {
        let env = format!("env:\n  secrets-manager:\n{}", lines(count));
        file("", &env)
    };
    assert!(plan(&file(100), &PlanRequest::default()).is_ok());
    let remarks = refused(&file(101), &PlanRequest::default());
    assert!(
        remarks.contains("more than 100 variables are secrets"),
        "{remarks}"
    );
}
