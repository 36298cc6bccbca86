//! The ids of AWS access keys, which logs never show, whoever prints them: CodeBuild puts three asterisks in their
//! place. Pure.
//!
//! An id is `AKIA` or `ASIA` and at least 16 capital letters and digits more, in a word of its own (IAM API
//! reference, "AccessKey": 16 to 128 characters of `\w`; ids in use have 20).

/// How ids of keys of users and of temporary keys begin. Ids of other kinds are no secrets.
const PREFIXES: [&[u8]; 2] = [b"AKIA", b"ASIA"];
/// How many characters an id has at least.
const LENGTH_MIN: usize = 20;
/// How many it has at most: a longer word is none.
const LENGTH_MAX: usize = 128;
/// What stands in the place of an id.
const MASK: &[u8] = b"***";

/// Takes ids out of a stream. What may become one is held back until it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIds {
    /// The begin of a word that may be an id.
    held: Vec<u8>,
    /// Whether the byte before what comes next is part of a word that is no id.
    in_word: bool,
}

impl KeyIds {
    /// Adds `bytes` to `out`, but for ids and for what is held back.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if !self.held.is_empty() {
                self.add(byte, out);
                rest = after;
                continue;
            }
            // As far as no word begins with the first letter of an id.
            let plain = rest.iter().position(|&byte| {
                let begins = !self.in_word && byte == PREFIXES[0][0];
                self.in_word = is_of_word(byte);
                begins
            });
            let (plain, more) = rest.split_at(plain.unwrap_or(rest.len()));
            out.extend_from_slice(plain);
            rest = more;
            if let Some((&first, after)) = more.split_first() {
                self.held.push(first);
                rest = after;
            }
        }
    }

    /// Gives what is held back: something else comes now.
    pub(crate) fn let_go(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        out.extend_from_slice(if is_id(&held) { MASK } else { &held });
        self.in_word = false;
    }

    /// The byte after what is held back.
    fn add(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        if self.may_be() {
            return;
        }
        self.held.pop();
        self.in_word = is_of_word(byte);
        if is_id(&self.held) && !self.in_word {
            out.extend_from_slice(MASK);
        } else {
            out.extend_from_slice(&self.held);
        }
        self.held.clear();
        out.push(byte);
    }

    /// Whether what is held back may be the begin of an id.
    fn may_be(&self) -> bool {
        let length = self.held.len();
        let begins = |prefix: &[u8]| {
            let common = length.min(prefix.len());
            self.held[..common] == prefix[..common]
        };
        length <= LENGTH_MAX
            && PREFIXES.into_iter().any(begins)
            && self.held.last().is_some_and(|&byte| is_of_id(byte))
    }
}

/// The text without ids.
pub(crate) fn without_key_ids(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut ids = KeyIds::default();
    ids.push(text, &mut out);
    ids.let_go(&mut out);
    out
}

fn is_id(word: &[u8]) -> bool {
    LENGTH_MIN <= word.len() && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

const fn is_of_id(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

const fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together here, so that no tool takes it for a key that somebody has lost.
    fn id(prefix: &str) -> String {
        format!("{prefix}IOSFODNN7EXAMPLE")
    }

    #[test]
    fn ids_of_access_keys_are_three_asterisks_and_nothing_else_is() {
        let (long, other) = (id("AKIA"), id("ASIA"));
        for (text, shown) in [
            (format!("id={long}\n"), "id=***\n".to_owned()),
            (format!("{long},{other}"), "***,***".to_owned()),
            (format!("_{long}_"), "_***_".to_owned()),
            (format!("x{long}"), format!("x{long}")),
            (format!("{long}x"), format!("{long}x")),
            (format!("A{long}"), format!("A{long}")),
            (long[..19].to_owned(), long[..19].to_owned()),
            (id("AROA"), id("AROA")),
            (
                "A\nAK AKIA AKIA\n".to_owned(),
                "A\nAK AKIA AKIA\n".to_owned(),
            ),
        ] {
            let masked = without_key_ids(text.as_bytes());
            assert_eq!(String::from_utf8(masked).unwrap(), shown, "{text}");
        }
        let endless = format!("AKIA{}", "A".repeat(LENGTH_MAX));
        assert_eq!(without_key_ids(endless.as_bytes()), endless.as_bytes());
    }

    #[test]
    fn however_the_output_is_cut_the_same_is_shown_and_little_is_held_back() {
        let text = format!("A{0} AKI {0}\n{1}x {0}.AAKIA{1}", id("AKIA"), id("ASIA"));
        let whole = without_key_ids(text.as_bytes());
        for size in 1..text.len() {
            let (mut ids, mut out) = (KeyIds::default(), Vec::new());
            for part in text.as_bytes().chunks(size) {
                ids.push(part, &mut out);
                assert!(ids.held.len() <= LENGTH_MAX);
            }
            ids.let_go(&mut out);
            assert_eq!(out, whole, "in pieces of {size}");
        }
        let (mut ids, mut out) = (KeyIds::default(), Vec::new());
        ids.push(b"Listening on A\n", &mut out);
        assert_eq!(
            out, b"Listening on A\n",
            "a line that has ended is shown at once"
        );
    }
}
