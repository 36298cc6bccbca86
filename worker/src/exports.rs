//! `env.exported-variables`: what they hold when a phase ends.
//!
//! Pure. Variables that are not set are left out, and so are those for which there is no room.

use std::collections::BTreeMap;

use protocol::job::EXPORTED_BYTES_MAX;

/// What exported variables hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Exported {
    /// Their values, by name. Bytes that are not UTF-8 are replaced.
    pub(crate) values: BTreeMap<String, String>,
    /// Those that would be too long together with the ones before.
    pub(crate) too_long: Vec<String>,
}

/// What the variables with these names hold.
pub(crate) fn of(names: &[String], variables: &BTreeMap<String, Vec<u8>>) -> Exported {
    let mut exported = Exported::default();
    let mut left = EXPORTED_BYTES_MAX;
    for name in names {
        let Some(value) = variables.get(name) else {
            continue;
        };
        let value = String::from_utf8_lossy(value).into_owned();
        match left.checked_sub(name.len() + value.len()) {
            Some(rest) => {
                left = rest;
                exported.values.insert(name.clone(), value);
            }
            None => exported.too_long.push(name.clone()),
        }
    }
    exported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_left_out_and_what_is_too_long_is_named() {
        let names = ["A", "GONE", "LONG", "B"].map(str::to_owned);
        let long = vec![b'x'; EXPORTED_BYTES_MAX];
        let variables = [
            ("A", b"1".to_vec()),
            ("LONG", long),
            ("B", b"\xff".to_vec()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let exported = of(&names, &variables.into());
        let values: Vec<_> = exported.values.iter().collect();
        let expected = [("A", "1"), ("B", "\u{fffd}")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(
            values,
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
        assert_eq!(exported.too_long, ["LONG"]);
    }
}
