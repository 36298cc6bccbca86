//! Tests of secrets: what is kept, who gets what, and what lies on the disk.

use std::{fs, path::Path};

use protocol::secret::{SecretStage, SecretStore};

use super::{contents::VERSIONS_MAX, *};

const VALUE: &str = "correct horse battery staple";

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).unwrap()
}

fn place(project: Option<&str>, id: &str) -> Place {
    Place {
        team: "red".parse().unwrap(),
        project: project.map(|project| project.parse().unwrap()),
        id: id.parse().unwrap(),
    }
}

fn open(home: &Path) -> Secrets {
    Secrets::new(home.join("farm/secrets"), home.join("key.pem"))
}

fn set(secrets: &Secrets, place: Place, text: &str) -> String {
    let by = ("developer ann".to_owned(), WallTime(7));
    secrets.set(place, value(text), by).unwrap()
}

fn reference(text: &str) -> SecretRef {
    let mut parts = text.split(':').map(|part| match part {
        "" => None,
        part => Some(part.to_owned()),
    });
    let mut next = || parts.next().flatten();
    SecretRef {
        variable: "TOKEN".to_owned(),
        store: SecretStore::SecretsManager,
        id: next().unwrap(),
        json_key: next(),
        stage: next(),
        version: next(),
    }
}

fn wanted(refs: Vec<SecretRef>) -> Wanted {
    Wanted {
        build: BuildId(7),
        team: "red".parse().unwrap(),
        project: "app".parse().unwrap(),
        refs,
    }
}

/// The value that is delivered, or the message.
fn delivered(secrets: &Secrets, build: u128, reference: SecretRef) -> Result<String, String> {
    let wanted = Wanted {
        build: BuildId(build),
        ..wanted(vec![reference])
    };
    match secrets.deliver(&wanted).unwrap() {
        SecretsReply::Delivered(delivery) => {
            let value = delivery.secrets[0].value.expose();
            Ok(String::from_utf8(value.to_vec()).unwrap())
        }
        SecretsReply::Unresolved(context) => {
            assert_eq!(context.status_code, "CLIENT_ERROR");
            Err(context.message)
        }
    }
}

/// Every file below a directory, in one run of bytes.
fn all_bytes(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes.extend(all_bytes(&path)),
            false => bytes.extend(fs::read(path).unwrap()),
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_secret_outlives_a_restart_and_lies_nowhere_in_plain() {
    let home = tempfile::tempdir().unwrap();
    set(&open(home.path()), place(None, "db"), VALUE);
    fs::write(home.path().join("control"), "control value").unwrap();
    let secrets = open(home.path());
    assert_eq!(
        delivered(&secrets, 1, reference("db")),
        Ok(VALUE.to_owned())
    );
    let bytes = all_bytes(home.path());
    assert!(
        holds(&bytes, "control value"),
        "the search finds what is there"
    );
    assert!(!holds(&bytes, VALUE) && !holds(&bytes, "horse battery"));
    assert!(!format!("{secrets:?}").contains("horse"));
    let listed = secrets.list(&"red".parse().unwrap(), None).unwrap();
    assert_eq!(listed[0].versions[0].by, "developer ann");
    assert_eq!(listed[0].versions[0].set, WallTime(7));
    assert!(!serde_json::to_string(&listed).unwrap().contains("horse"));
}

#[test]
fn versions_have_stages_and_ids_and_old_ones_go() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    let ids: Vec<_> = (0..=VERSIONS_MAX)
        .map(|at| set(&secrets, place(None, "db"), &format!("value-{at}")))
        .collect();
    let of = |text: &str| delivered(&secrets, 1, reference(text));
    // Each variable of a unit is found once, so each try is a build of its own.
    let by_build = |build, text: &str| delivered(&secrets, build, reference(text));
    assert_eq!(of("db"), Ok("value-10".to_owned()));
    assert_eq!(by_build(2, "db::AWSCURRENT"), Ok("value-10".to_owned()));
    assert_eq!(by_build(3, "db::AWSPREVIOUS"), Ok("value-9".to_owned()));
    let oldest = format!("db:::{}", ids[1]);
    assert_eq!(by_build(4, &oldest), Ok("value-1".to_owned()));
    let gone = by_build(5, &format!("db:::{}", ids[0])).unwrap_err();
    assert!(
        gone.contains("specified secret value for VersionId"),
        "{gone}"
    );
    let other = by_build(6, "db::MINE").unwrap_err();
    assert!(other.contains("for staging label: MINE"), "{other}");
    let listed = secrets.list(&"red".parse().unwrap(), None).unwrap();
    let stages: Vec<_> = listed[0].versions.iter().map(|of| of.stage).collect();
    assert_eq!(stages.len(), VERSIONS_MAX);
    let expected = [
        Some(SecretStage::AwsCurrent),
        Some(SecretStage::AwsPrevious),
        None,
    ];
    assert_eq!(stages[..3], expected);
}

#[test]
fn a_projects_own_secret_goes_before_its_teams_and_no_other_project_gets_it() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    set(&secrets, place(None, "db"), "of the team");
    set(&secrets, place(Some("app"), "db"), "of the project");
    set(&secrets, place(Some("other"), "hidden"), "of another");
    assert_eq!(
        delivered(&secrets, 1, reference("db")).unwrap(),
        "of the project"
    );
    secrets.delete(&place(Some("app"), "db")).unwrap();
    assert_eq!(
        delivered(&secrets, 2, reference("db")).unwrap(),
        "of the team"
    );
    let message = delivered(&secrets, 3, reference("hidden")).unwrap_err();
    assert!(
        message.contains("can't find the specified secret."),
        "{message}"
    );
    let parameter = SecretRef {
        store: SecretStore::ParameterStore,
        ..reference("/none")
    };
    let message = delivered(&secrets, 4, parameter).unwrap_err();
    assert!(message.starts_with("Parameter does not exist"), "{message}");
    let strangers = Wanted {
        team: "blue".parse().unwrap(),
        ..wanted(vec![reference("db")])
    };
    let reply = secrets.deliver(&strangers).unwrap();
    assert!(matches!(reply, SecretsReply::Unresolved(_)), "{reply:?}");
    assert!(matches!(
        secrets.delete(&place(None, "none")),
        Err(ChangeError::Unknown)
    ));
}

#[test]
fn keys_of_json_objects_and_arns_are_understood() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    let json = r#"{"user":"admin","pass":"pa\"ss","port":12345,"in":{"deep":"inside"},"no":"x"}"#;
    set(&secrets, place(None, "prod/db"), json);
    set(&secrets, place(None, "/app/login"), "root");
    let of = |build, text: &str| delivered(&secrets, build, reference(text));
    assert_eq!(of(1, "prod/db:pass").unwrap(), "pa\"ss");
    assert_eq!(of(2, "prod/db:port").unwrap(), "12345");
    assert!(of(3, "prod/db:none").unwrap_err().contains("no key `none`"));
    let short = of(4, "prod/db:no").unwrap_err();
    assert!(short.contains("at least 4 bytes"), "{short}");
    let no_object = of(5, "/app/login:key").unwrap_err();
    assert!(no_object.contains("no JSON object"), "{no_object}");
    let arn = |id: &str| SecretRef {
        id: id.to_owned(),
        ..reference("x")
    };
    let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf";
    assert_eq!(delivered(&secrets, 6, arn(secret)).unwrap(), json);
    let parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter/app/login";
    assert_eq!(delivered(&secrets, 9, arn(parameter)).unwrap(), "root");
    // What commands pick out of the whole is a secret by itself.
    let SecretsReply::Delivered(whole) = secrets
        .deliver(&wanted(vec![reference("prod/db")]))
        .unwrap()
    else {
        panic!("it is there")
    };
    let parts = whole.secrets[0].parts.iter();
    let parts: Vec<_> = parts
        .map(|part| part.expose().escape_ascii().to_string())
        .collect();
    assert_eq!(parts, ["inside", "pa\\\"ss", "12345", "admin"]);
    let list = r#"[{"engine":"mine"},"{\"in\":\"a text\"}"]"#;
    let rds = r#"{"engine":"postgres","host":"db.internal"}"#;
    for (name, json, expected) in [
        ("list", list, &["mine", "{\"in\":\"a text\"}", "a text"][..]),
        ("rds", rds, &["db.internal"]),
    ] {
        set(&secrets, place(None, name), json);
        let wanted = Wanted {
            build: BuildId(10),
            ..wanted(vec![reference(name)])
        };
        let SecretsReply::Delivered(found) = secrets.deliver(&wanted).unwrap() else {
            panic!("it is there")
        };
        let parts = found.secrets[0].parts.iter().map(SecretValue::expose);
        let expected = expected.iter().map(|part| part.as_bytes());
        assert_eq!(parts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_build_keeps_what_it_was_given_whatever_becomes_of_the_secret() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    set(&secrets, place(None, "db"), "first value");
    let first = || Ok("first value".to_owned());
    assert_eq!(delivered(&secrets, 1, reference("db")), first());
    for at in 0..=VERSIONS_MAX {
        set(&secrets, place(None, "db"), &format!("value-{at}"));
    }
    assert_eq!(delivered(&secrets, 1, reference("db")), first(), "rotated");
    set(&secrets, place(Some("app"), "db"), "of the project");
    assert_eq!(
        delivered(&secrets, 1, reference("db")),
        first(),
        "set nearer"
    );
    secrets.delete(&place(None, "db")).unwrap();
    secrets.delete(&place(Some("app"), "db")).unwrap();
    assert_eq!(delivered(&secrets, 1, reference("db")), first(), "deleted");
    assert!(delivered(&secrets, 2, reference("db")).is_err());
    // Another unit or variable of the same build that names the same gets the same.
    let other = SecretRef {
        variable: "OTHER".to_owned(),
        ..reference("db")
    };
    assert_eq!(delivered(&open(home.path()), 1, other), first());
    assert!(!holds(&all_bytes(home.path()), "first value"));
    secrets.forget(BuildId(1)).unwrap();
    assert!(delivered(&secrets, 1, reference("db")).is_err());
}

#[test]
fn what_a_write_that_broke_off_has_left_of_a_build_goes_with_it() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    set(&secrets, place(None, "db"), VALUE);
    delivered(&secrets, 1, reference("db")).unwrap();
    let kept = home
        .path()
        .join("farm/secrets/builds")
        .join(BuildId(1).to_string());
    fs::rename(&kept, kept.with_extension("new")).unwrap();
    assert_eq!(secrets.builds().unwrap(), [BuildId(1)]);
    secrets.forget(BuildId(1)).unwrap();
    assert_eq!(secrets.builds().unwrap(), []);
}

#[test]
fn a_disk_that_refuses_is_waited_for_and_a_key_that_is_gone_is_not() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    set(&secrets, place(None, "db"), VALUE);
    let builds = home.path().join("farm/secrets/builds");
    fs::write(&builds, "no directory").unwrap();
    let refused = secrets.deliver(&wanted(vec![reference("db")])).unwrap_err();
    assert!(refused.is_passing(), "{refused}");
    fs::remove_file(&builds).unwrap();
    assert!(secrets.deliver(&wanted(vec![reference("db")])).is_ok());
    fs::remove_file(home.path().join("key.pem")).unwrap();
    let refused = open(home.path()).deliver(&wanted(vec![reference("db")]));
    let refused = refused.unwrap_err();
    assert!(!refused.is_passing(), "{refused}");
}

#[test]
fn all_phases_of_a_unit_get_one_key_and_the_versions_of_the_first() {
    let home = tempfile::tempdir().unwrap();
    let secrets = open(home.path());
    set(&secrets, place(None, "db"), "first value");
    let reply = |secrets: &Secrets| match secrets.deliver(&wanted(vec![reference("db")])).unwrap() {
        SecretsReply::Delivered(delivery) => delivery,
        SecretsReply::Unresolved(context) => panic!("{context:?}"),
    };
    let first = reply(&secrets);
    set(&secrets, place(None, "db"), "second value");
    assert_eq!(reply(&open(home.path())), first, "also after a restart");
    assert_eq!(
        delivered(&secrets, 8, reference("db")).unwrap(),
        "second value"
    );
    assert_eq!(secrets.builds().unwrap().len(), 2);
    secrets.forget(BuildId(7)).unwrap();
    secrets.forget(BuildId(7)).unwrap();
    assert_eq!(secrets.builds().unwrap(), [BuildId(8)]);
    assert_ne!(
        reply(&secrets).key,
        first.key,
        "what was sealed stays sealed"
    );
}

#[test]
fn without_its_key_or_with_another_nothing_is_read_or_written() {
    let home = tempfile::tempdir().unwrap();
    set(&open(home.path()), place(None, "db"), VALUE);
    let key = home.path().join("key.pem");
    let vault = home.path().join("farm/secrets/vault");
    let before = fs::read(&vault).unwrap();
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let change = |secrets: &Secrets| {
        let by = ("ann".to_owned(), WallTime(1));
        let refused = secrets.set(place(None, "new"), value(VALUE), by);
        refused.unwrap_err().to_string()
    };
    let message = change(&open(home.path()));
    assert!(message.contains("their key is not in"), "{message}");
    assert!(!key.exists(), "no other key is made");
    transport::create_seal_key(&key).unwrap();
    let message = change(&open(home.path()));
    assert!(message.contains("does not open with the key"), "{message}");
    assert_eq!(fs::read(&vault).unwrap(), before);
    fs::write(&key, kept).unwrap();
    assert!(open(home.path()).check().is_ok());
}
