//! Tests of a unit's secrets: what is shown of them, and how much there may be.

use protocol::secret::SealKey;

use super::*;

fn unit(secrets: &[(&str, &[u8])]) -> Result<UnitSecrets, PatternsError> {
    let delivered = secrets.iter().map(|(variable, value)| DeliveredSecret {
        variable: (*variable).to_owned(),
        version: "v1".to_owned(),
        value: SecretValue::new(value.to_vec()).unwrap(),
        parts: Vec::new(),
    });
    UnitSecrets::new(SecretDelivery {
        key: SealKey::new([7; 32]),
        secrets: delivered.collect(),
    })
}

#[test]
fn what_is_shown_of_secrets_are_their_variables() {
    let secrets = unit(&[("TOKEN", b"hunter2"), ("OTHER", b"QQQQQQQQ")]).unwrap();
    assert_eq!(format!("{secrets:?}"), r#"{"TOKEN", "OTHER"}"#);
    // An automaton shows its transitions, byte by byte.
    let references = format!("{:?}", secrets.references);
    assert_eq!(references, r#"References(["TOKEN@v1#0", "OTHER@v1#0"])"#);
    let mut masker = Masker::new(Arc::clone(secrets.patterns()));
    masker.push(b"QQQQ", &mut Vec::new());
    assert!(!format!("{masker:?}").contains("81"), "{masker:?}");
}

#[test]
fn short_values_are_looked_for_in_logs_and_not_in_what_is_stored() {
    let secrets = unit(&[("SHORT", b"hunter2"), ("LONG", b"hunter22\nroot")]).unwrap();
    for (text, shown, stored) in [
        ("hunter2", Some("SHORT"), None),
        ("/root/x", Some("LONG"), None),
        ("hunter22", Some("SHORT"), Some("LONG")),
        ("aHVudGVyMjI", Some("SHORT"), Some("LONG")),
    ] {
        assert_eq!(secrets.patterns().find(text.as_bytes()), shown, "{text}");
        let of_stored = secrets.stored().unwrap().find(text.as_bytes());
        assert_eq!(of_stored, stored, "{text}");
    }
}

#[test]
fn secrets_that_are_too_large_to_be_found_are_refused_by_name() {
    let line = b"a line \"with\" 'all' $kinds of <marks> & more; that % shells, URLs = and JSON \\ escape\n";
    let large = line.repeat(700);
    let Err(refused) = unit(&[("SMALL", b"hunter2"), ("LARGE", &large)]) else {
        panic!("it was taken");
    };
    assert!(refused.to_string().contains("variable LARGE"), "{refused}");
    // Keys of usual sizes are no trouble.
    let digits = (0..3_200_u32).map(|index| b'A' + u8::try_from(index * index % 47).unwrap());
    let digits: Vec<_> = digits.collect();
    let lines: Vec<_> = digits
        .chunks(64)
        .map(|line| line.escape_ascii().to_string())
        .collect();
    let key = lines.join("\n");
    assert!(unit(&[("KEY", key.as_bytes()), ("TOKEN", b"hunter2")]).is_ok());
}
