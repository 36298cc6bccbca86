//! Reads what shells print for `export -p`, as raw bytes.
//!
//! dash and busybox print `export NAME='value'`, bash `declare -x NAME="value"` or `$'value'`, and all of
//! them quote so that a shell can read it again. Reading it here takes no process, works for values that
//! are too large for one, and tells arrays (which do not persist) from variables.

use std::collections::BTreeMap;

use super::script::is_name;

/// Why bytes are not what `export -p` prints.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("shell printed its variables in an unknown way at byte {at}")]
pub(super) struct ParseExportsError {
    /// Where reading stopped making sense.
    at: usize,
}

/// Reads the exported variables that have a value. Arrays are left out.
pub(super) fn parse(text: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ParseExportsError> {
    let mut reader = Reader { text, at: 0 };
    let mut variables = BTreeMap::new();
    while reader.at < text.len() {
        let array = reader.declaration()?;
        let name = reader.name()?;
        if reader.skip(b"\n") {
            // Exported, but without a value.
            continue;
        }
        if !reader.skip(b"=") {
            return Err(reader.error());
        }
        let value = reader.value()?;
        if !array {
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// A place in the text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    const fn error(&self) -> ParseExportsError {
        ParseExportsError { at: self.at }
    }

    fn skip(&mut self, expected: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn next(&mut self) -> Result<u8, ParseExportsError> {
        let byte = *self.text.get(self.at).ok_or_else(|| self.error())?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads `export ` or `declare -FLAGS `; whether the flags say that an array follows.
    fn declaration(&mut self) -> Result<bool, ParseExportsError> {
        if self.skip(b"export ") {
            return Ok(false);
        }
        if !self.skip(b"declare -") && !self.skip(b"typeset -") {
            return Err(self.error());
        }
        let mut array = false;
        loop {
            match self.next()? {
                b' ' => return Ok(array),
                b'a' | b'A' => array = true,
                flag if flag.is_ascii_alphabetic() => {}
                _ => return Err(self.error()),
            }
        }
    }

    fn name(&mut self) -> Result<String, ParseExportsError> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b'\n'));
        let name = &rest[..end.ok_or_else(|| self.error())?];
        if !is_name(name) {
            return Err(self.error());
        }
        self.at += name.len();
        String::from_utf8(name.to_vec()).map_err(|_| self.error())
    }

    /// Reads a word up to the end of its line, and takes its quotes away.
    fn value(&mut self) -> Result<Vec<u8>, ParseExportsError> {
        let mut value = Vec::new();
        loop {
            match self.next()? {
                b'\n' => return Ok(value),
                b'\'' => self.single_quoted(&mut value)?,
                b'"' => self.double_quoted(&mut value)?,
                b'$' if self.skip(b"'") => self.ansi_quoted(&mut value)?,
                b'\\' => match self.next()? {
                    b'\n' => {}
                    byte => value.push(byte),
                },
                byte => value.push(byte),
            }
        }
    }

    fn single_quoted(&mut self, value: &mut Vec<u8>) -> Result<(), ParseExportsError> {
        loop {
            match self.next()? {
                b'\'' => return Ok(()),
                byte => value.push(byte),
            }
        }
    }

    fn double_quoted(&mut self, value: &mut Vec<u8>) -> Result<(), ParseExportsError> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'\n' => {}
                    byte @ (b'"' | b'\\' | b'$' | b'`') => value.push(byte),
                    byte => value.extend([b'\\', byte]),
                },
                byte => value.push(byte),
            }
        }
    }

    /// Reads the rest of `$'…'`, as bash writes it.
    fn ansi_quoted(&mut self, value: &mut Vec<u8>) -> Result<(), ParseExportsError> {
        loop {
            let byte = match self.next()? {
                b'\'' => return Ok(()),
                b'\\' => match self.next()? {
                    b'a' => 0x07,
                    b'b' => 0x08,
                    b'e' | b'E' => 0x1b,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    digit @ b'0'..=b'7' => self.octal(digit)?,
                    byte @ (b'\\' | b'\'' | b'"' | b'?') => byte,
                    _ => return Err(self.error()),
                },
                byte => byte,
            };
            value.push(byte);
        }
    }

    /// Reads the rest of an octal number of up to three digits.
    fn octal(&mut self, first: u8) -> Result<u8, ParseExportsError> {
        let mut number = u16::from(first - b'0');
        for _ in 0..2 {
            match self.text.get(self.at) {
                Some(digit @ b'0'..=b'7') => number = number * 8 + u16::from(digit - b'0'),
                _ => break,
            }
            self.at += 1;
        }
        u8::try_from(number).map_err(|_| self.error())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use protocol::job::Shell;

    use super::*;
    use crate::sandbox::script::exports;

    fn one(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        parse(text).unwrap().into_iter().collect()
    }

    #[test]
    fn what_dash_prints_is_read() {
        let text = b"export A='it'\"'\"'s'\nexport B\nexport C=''\nexport D='1\n2'\n";
        let expected = [("A", "it's"), ("C", ""), ("D", "1\n2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(one(text), expected);
    }

    #[test]
    fn what_bash_prints_is_read() {
        let text =
            b"declare -x A=\"\\$x \\\"y\\\" \\`z\\` \\\\ 'w'\"\ndeclare -rx B=$'a\\nb\\001\\'c'\n\
            declare -ax L=([0]=\"a b\" [1]=\"c\")\ndeclare -x OLDPWD\ndeclare -ix N=\"3\"\n";
        let expected = [
            ("A", b"$x \"y\" `z` \\ 'w'".to_vec()),
            ("B", b"a\nb\x01'c".to_vec()),
            ("N", b"3".to_vec()),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(one(text), expected);
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            &b"A=1\n"[..],
            b"export A='1\n",
            b"export A=1",
            b"export =1\n",
            b"export a.b='1'\n",
            b"declare -x A=$'\\777'\n",
            b"declare -x",
        ] {
            assert!(parse(text).is_err(), "{}", text.escape_ascii());
        }
    }

    /// Has `shell` read `variables` and print them.
    fn through(shell: &str, variables: &BTreeMap<String, Vec<u8>>, kind: Shell) -> Vec<u8> {
        let script = [&exports(variables, kind)[..], b"export -p\n"].concat();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, script).unwrap();
        let output = Command::new(shell)
            .arg(&path)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn any_bytes_survive_the_shells_of_this_machine() {
        let every_byte: Vec<u8> = (1..=255).collect();
        let mut variables = BTreeMap::from([
            ("EMPTY".to_owned(), Vec::new()),
            ("EVERY".to_owned(), every_byte),
            ("LINES".to_owned(), b"a\n\nb\n".to_vec()),
            ("QUOTES".to_owned(), b"'\"'\\''$'x'\\\n`$(y)`!".to_vec()),
            ("_x9".to_owned(), "gr\u{fc}n \u{1f33e}".as_bytes().to_vec()),
        ]);
        for byte in 1..=255_u8 {
            variables.insert(format!("B{byte}"), vec![byte, b'\\', byte, b'a']);
        }
        for (shell, kind) in [("/bin/sh", Shell::Sh), ("/bin/bash", Shell::Bash)] {
            if !std::path::Path::new(shell).exists() {
                continue;
            }
            let mut found = parse(&through(shell, &variables, kind)).unwrap();
            found.retain(|name, _| variables.contains_key(name));
            assert_eq!(found, variables, "{shell}");
        }
    }
}
