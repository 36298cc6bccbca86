//! The way out of a terminal whose program takes every key: at the begin of a line `~.` leaves, and `~~` is a `~`, as
//! in `ssh`.

/// What somebody typed of an escape so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Somewhere in a line.
    Line,
    /// Nothing of a line.
    Begin,
    /// A `~` at its begin, which is held back.
    Tilde,
    /// Out.
    Left,
}

/// Looks for the way out in what is typed.
#[derive(Debug)]
pub(super) struct Escape(Stage);

/// What becomes of what was typed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Typed {
    /// It is sent.
    Sent(Vec<u8>),
    /// The person leaves.
    Leaves,
}

impl Escape {
    /// Nothing was typed yet.
    pub(super) const fn new() -> Self {
        Self(Stage::Begin)
    }

    /// Whether the person has left.
    pub(super) fn has_left(&self) -> bool {
        self.0 == Stage::Left
    }

    /// Takes what was typed next.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Typed {
        let mut sent = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            let stage = self.0;
            self.0 = match byte {
                b'\r' | b'\n' => Stage::Begin,
                b'~' if stage == Stage::Begin => Stage::Tilde,
                b'.' if stage == Stage::Tilde => {
                    self.0 = Stage::Left;
                    return Typed::Leaves;
                }
                _ => Stage::Line,
            };
            if stage == Stage::Tilde && byte != b'~' {
                sent.push(b'~');
            }
            if self.0 != Stage::Tilde {
                sent.push(byte);
            }
        }
        Typed::Sent(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> Option<String> {
        let mut escape = Escape::new();
        let mut sent = Vec::new();
        for piece in pieces {
            match escape.push(piece.as_bytes()) {
                Typed::Sent(bytes) => sent.extend(bytes),
                Typed::Leaves => return None,
            }
        }
        Some(String::from_utf8(sent).unwrap())
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_begin_of_a_line_leave_however_they_come() {
        for pieces in [&["~."][..], &["~", "."], &["ls\r~."], &["ls\n", "~", ".x"]] {
            assert_eq!(typed(pieces), None, "{pieces:?}");
        }
    }

    #[test]
    fn all_else_is_sent_as_it_is() {
        for (pieces, sent) in [
            (&["ls ~.\r"][..], "ls ~.\r"),
            (&["~/bin\r"], "~/bin\r"),
            (&["~", "/bin"], "~/bin"),
            (&["~~.\r"], "~.\r"),
            (&["~\r~x"], "~\r~x"),
        ] {
            assert_eq!(typed(pieces).as_deref(), Some(sent), "{pieces:?}");
        }
    }
}
