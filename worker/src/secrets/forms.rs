//! The forms in which commands print a secret. Pure.
//!
//! Which they are is a list of what shells, encoders and tools really do with a text; each is what stands in
//! the output, without what a tool puts around it.

use std::collections::BTreeSet;

/// The shortest form that is looked for, in bytes: as short as the shortest secret. Whatever is shorter
/// stands in every log.
pub(super) const FORM_BYTES_MIN: usize = 4;

/// Up to how many bytes of a secret are looked for quoted twice: a key of several thousand bits in one line has
/// less, and forms grow with their number.
const QUOTED_TWICE_BYTES_MAX: usize = 4 * 1024;

/// The two alphabets of base64, by their last two characters.
const BASE64_ENDS: [[u8; 2]; 2] = [*b"+/", *b"-_"];

/// All forms of a secret as they are found in a run of bytes, without those that are too short. Of its lines, those
/// of `part_bytes_min` bytes and more have forms of their own.
pub(super) fn plain_forms(secret: &[u8], part_bytes_min: usize) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    for part in parts(secret, part_bytes_min) {
        forms.insert(part.to_vec());
        forms.extend(shell_forms(part));
        forms.extend(json_forms(part));
        forms.extend(url_forms(part));
        forms.extend(markup_forms(part));
        forms.extend(python_forms(part));
        if part.len() <= QUOTED_TWICE_BYTES_MAX {
            forms.extend(quoted_twice(part));
        }
        forms.extend([
            hex(part, b"0123456789abcdef"),
            hex(part, b"0123456789ABCDEF"),
        ]);
    }
    forms.retain(|form| FORM_BYTES_MIN <= form.len());
    forms
}

/// The forms of a secret in base64, between which ends of line may stand: tools wrap it.
pub(super) fn wrapped_forms(secret: &[u8], part_bytes_min: usize) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    for part in parts(secret, part_bytes_min) {
        for ends in BASE64_ENDS {
            for offset in 0..3 {
                forms.extend(base64_forms(part, offset, ends));
            }
        }
    }
    forms.retain(|form| FORM_BYTES_MIN <= form.len());
    forms
}

/// A secret, and of one of several lines each of them, with and without the space around it.
fn parts(secret: &[u8], bytes_min: usize) -> BTreeSet<&[u8]> {
    let mut parts = BTreeSet::from([secret]);
    if secret.contains(&b'\n') || secret.contains(&b'\r') {
        for line in secret.split(|byte| matches!(byte, b'\n' | b'\r')) {
            parts.extend([line, line.trim_ascii()]);
        }
        parts.insert(secret.trim_ascii());
    } else {
        parts.insert(secret.trim_ascii());
    }
    parts.retain(|part| bytes_min <= part.len());
    parts
}

/// What stands in base64 if `offset` bytes come before the secret in what is encoded, counted in threes: as
/// far as it does not depend on what comes before and after, and as it ends if nothing comes after.
fn base64_forms(secret: &[u8], offset: usize, ends: [u8; 2]) -> [Vec<u8>; 2] {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(secret);
    let encoded = base64(&bytes, ends);
    // The characters that hold bits of what comes before, and of what comes after.
    let before = (offset * 8).div_ceil(6);
    let whole = bytes.len() * 8 / 6;
    [encoded[before..whole].to_vec(), encoded[before..].to_vec()]
}

/// Base64 without padding.
fn base64(bytes: &[u8], ends: [u8; 2]) -> Vec<u8> {
    let letter = |bits: u32| {
        let bits = u8::try_from(bits & 63).expect("six bits fit");
        match bits {
            0..26 => b'A' + bits,
            26..52 => b'a' + (bits - 26),
            52..62 => b'0' + (bits - 52),
            62 => ends[0],
            _ => ends[1],
        }
    };
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let letters = [bits >> 18, bits >> 12, bits >> 6, bits].map(letter);
        text.extend_from_slice(&letters[..=three.len()]);
    }
    text
}

/// How shells quote it: for `set -x`, `export -p`, `printf %q`, `${x@Q}` and their like.
fn shell_forms(secret: &[u8]) -> [Vec<u8>; 9] {
    [
        // dash and bash between single quotes.
        replaced(secret, |byte| (byte == b'\'').then(|| br"'\''".to_vec())),
        dash_quoted(secret),
        // Python's `shlex` has each quote by itself.
        replaced(secret, |byte| (byte == b'\'').then(|| br#"'"'"'"#.to_vec())),
        // Between double quotes.
        replaced(secret, |byte| {
            b"\"$`\\".contains(&byte).then(|| vec![b'\\', byte])
        }),
        // Without quotes.
        replaced(secret, |byte| {
            let is_bare =
                byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte) || byte >= 0x80;
            (!is_bare).then(|| vec![b'\\', byte])
        }),
        bash_bare(secret),
        // bash's `$'…'`, in a locale of ASCII and in one of UTF-8.
        replaced(secret, ansi_quoted),
        replaced(secret, |byte| match byte {
            0x80.. => None,
            byte => ansi_quoted(byte),
        }),
        // SQL, YAML and others.
        replaced(secret, |byte| (byte == b'\'').then(|| b"''".to_vec())),
    ]
}

/// What bash writes without quotes: its own idea of what is special, and where. What is so only at the begin of a
/// word is found without its backslash.
fn bash_bare(secret: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(secret.len());
    let mut before = 0;
    for &byte in secret {
        let is_special = match byte {
            b'~' => matches!(before, b'=' | b':'),
            byte => b" \t!\"$&'()*,;<>?[\\]^`{|}".contains(&byte),
        };
        if is_special {
            quoted.push(b'\\');
        }
        quoted.push(byte);
        before = byte;
    }
    quoted
}

/// What dash writes behind the first quote: quotes of the secret stand between double quotes, those that follow
/// each other together.
fn dash_quoted(secret: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    for run in secret.chunk_by(|a, b| (*a == b'\'') == (*b == b'\'')) {
        if run[0] == b'\'' {
            quoted.extend([&br#"'""#[..], run, br#""'"#].concat());
        } else {
            quoted.extend_from_slice(run);
        }
    }
    if secret.ends_with(b"'") {
        // At the end of a word nothing is opened again.
        quoted.pop();
    }
    quoted
}

/// How bash writes a byte between `$'` and `'`.
fn ansi_quoted(byte: u8) -> Option<Vec<u8>> {
    let letter = match byte {
        0x07 => b'a',
        0x08 => b'b',
        0x1b => b'E',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x0b => b'v',
        b'\\' | b'\'' => byte,
        0x00..0x20 | 0x7f.. => return Some(format!("\\{byte:03o}").into_bytes()),
        _ => return None,
    };
    Some(vec![b'\\', letter])
}

/// How it stands in JSON, as tools write it: with and without slashes escaped, with what HTML reads
/// escaped, and in ASCII only.
fn json_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let basic = |byte: u8| {
        let letter = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0x00..0x20 => return Some(unicode_escape(u32::from(byte))),
            _ => return None,
        };
        Some(vec![b'\\', letter])
    };
    let slashes = |byte: u8| match byte {
        b'/' => Some(br"\/".to_vec()),
        byte => basic(byte),
    };
    let html = |byte: u8| match byte {
        b'<' | b'>' | b'&' => Some(unicode_escape(u32::from(byte))),
        byte => basic(byte),
    };
    let mut forms = vec![
        replaced(secret, basic),
        replaced(secret, slashes),
        replaced(secret, html),
    ];
    if let (Ok(text), false) = (str::from_utf8(secret), secret.is_ascii()) {
        for is_upper in [false, true] {
            let escape = |unit: &u16| {
                let escape = unicode_escape(u32::from(*unit));
                match is_upper {
                    true => [b"\\u", &escape[2..].to_ascii_uppercase()[..]].concat(),
                    false => escape,
                }
            };
            let ascii = text.chars().flat_map(|letter| {
                let byte = u8::try_from(letter).ok().filter(u8::is_ascii);
                let as_it_is = |byte| basic(byte).unwrap_or_else(|| vec![byte]);
                byte.map_or_else(
                    || {
                        letter
                            .encode_utf16(&mut [0; 2])
                            .iter()
                            .flat_map(escape)
                            .collect()
                    },
                    as_it_is,
                )
            });
            forms.push(ascii.collect());
        }
    }
    forms
}

/// How it stands in XML and HTML, as the many ways of escaping have it, and in CSV.
fn markup_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let quotes = [
        (None, None),
        (Some("&quot;"), None),
        (Some("&quot;"), Some("&apos;")),
        (Some("&quot;"), Some("&#39;")),
        (Some("&quot;"), Some("&#039;")),
        (Some("&quot;"), Some("&#x27;")),
        (Some("&#34;"), Some("&#39;")),
    ];
    let escaped = |(double, single): (Option<&str>, Option<&str>), greater: Option<&str>| {
        replaced(secret, |byte| {
            let entity = match byte {
                b'&' => Some("&amp;"),
                b'<' => Some("&lt;"),
                b'>' => greater,
                b'"' => double,
                b'\'' => single,
                _ => None,
            };
            entity.map(|entity| entity.as_bytes().to_vec())
        })
    };
    let both = |quotes| [escaped(quotes, Some("&gt;")), escaped(quotes, None)];
    let mut forms: Vec<_> = quotes.into_iter().flat_map(both).collect();
    forms.push(replaced(secret, |byte| {
        (byte == b'"').then(|| b"\"\"".to_vec())
    }));
    forms
}

/// How Python, and others that took after it, show a text: with one kind of quotes escaped, or none.
fn python_forms(secret: &[u8]) -> [Vec<u8>; 4] {
    let shown = |byte: u8, escapes_high: bool| match byte {
        b'\\' => Some(br"\\".to_vec()),
        b'\n' => Some(br"\n".to_vec()),
        b'\r' => Some(br"\r".to_vec()),
        b'\t' => Some(br"\t".to_vec()),
        0x00..0x20 | 0x7f => Some(format!("\\x{byte:02x}").into_bytes()),
        0x80.. if escapes_high => Some(format!("\\x{byte:02x}").into_bytes()),
        _ => None,
    };
    let form = |single: bool, escapes_high: bool| {
        replaced(secret, |byte| match byte {
            b'\'' if single => Some(br"\'".to_vec()),
            byte => shown(byte, escapes_high),
        })
    };
    [
        form(false, false),
        form(true, false),
        form(false, true),
        form(true, true),
    ]
}

/// JSON in a command that a shell prints, in a text of JSON, and a command in JSON.
fn quoted_twice(secret: &[u8]) -> Vec<Vec<u8>> {
    let json = json_forms(secret);
    let in_shell = json.iter().flat_map(|form| shell_forms(form));
    let in_json = json.iter().flat_map(|form| json_forms(form));
    let shell = shell_forms(secret);
    let commands = shell.iter().flat_map(|form| json_forms(form));
    in_shell.chain(in_json).chain(commands).collect()
}

fn unicode_escape(unit: u32) -> Vec<u8> {
    format!("\\u{unit:04x}").into_bytes()
}

/// What encoders of URLs leave as it is besides letters, digits and `-_.`: of forms (Java, browsers), of RFC 3986
/// (Python, Go, curl), with slashes, of JavaScript, of a user's password (Go, browsers), of a path (Go).
const KEPT_IN_URLS: [&str; 11] = [
    "",
    "*",
    "/",
    "~",
    "~/",
    "~!'()*",
    "~!'()*;/?:@&=+$,#",
    "~$&+,;=",
    "~!$&'()*+,%",
    "~$&+=:@",
    "~$&+,/:;=@",
];

/// How it stands in a URL: percent-encoded by each of these readings, with spaces as `+` or not, in both cases of
/// hex digits.
fn url_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    // Some tools encode every byte.
    let all = |digits: &[u8; 16]| {
        replaced(secret, |byte| {
            Some([&b"%"[..], &hex(&[byte], digits)].concat())
        })
    };
    let mut forms = vec![all(b"0123456789ABCDEF"), all(b"0123456789abcdef")];
    for kept in KEPT_IN_URLS {
        for plus in [false, true] {
            for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
                forms.push(replaced(secret, |byte| {
                    let is_kept = byte.is_ascii_alphanumeric()
                        || b"-_.".contains(&byte)
                        || kept.as_bytes().contains(&byte);
                    match byte {
                        b' ' if plus => Some(vec![b'+']),
                        _ if is_kept => None,
                        _ => Some([&b"%"[..], &hex(&[byte], digits)].concat()),
                    }
                }));
            }
        }
    }
    forms
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let digit = |half: u8| digits[usize::from(half)];
    let both = |&byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(both).collect()
}

/// The bytes with each for which there is something else replaced by that.
fn replaced(bytes: &[u8], by: impl Fn(u8) -> Option<Vec<u8>>) -> Vec<u8> {
    let replace = |&byte: &u8| by(byte).unwrap_or_else(|| vec![byte]);
    bytes.iter().flat_map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn has(secret: &str, form: &str) {
        let plain = plain_forms(secret.as_bytes(), FORM_BYTES_MIN);
        let wrapped = wrapped_forms(secret.as_bytes(), FORM_BYTES_MIN);
        let there = plain.contains(form.as_bytes()) || wrapped.contains(form.as_bytes());
        assert!(there, "{form} is no form of {secret}");
    }

    #[test]
    fn base64_is_what_encoders_print() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes(), *b"+/"), encoded.as_bytes());
        }
        assert_eq!(base64(&[0xfb, 0xff], *b"-_"), b"-_8");
    }

    #[test]
    fn what_is_in_the_middle_of_base64_is_found_at_each_offset() {
        let secret = b"hunter2!";
        let forms = wrapped_forms(secret, FORM_BYTES_MIN);
        for before in 0..7 {
            for after in 0..4 {
                let around = [&vec![b'x'; before], &secret[..], &vec![b'y'; after]].concat();
                let text = base64(&around, *b"+/");
                let is_in = |form: &Vec<u8>| text.windows(form.len()).any(|window| window == form);
                assert!(forms.iter().any(is_in), "{before} before, {after} after");
            }
        }
    }

    #[test]
    fn forms_are_what_shells_and_tools_print() {
        has("it's", r"it'\''s");
        has("it's", r#"it'"'"'s"#);
        has("its''x'", r#"its'"''"'x'"'""#);
        has("a$b`c\"d", r#"a\$b\`c\"d"#);
        has("a b;c", r"a\ b\;c");
        has("a\tb\u{1}c'", r"a\tb\001c\'");
        has("one\ntwo!", r"one\ntwo!");
        has("a\"b\\c/d", r#"a\"b\\c/d"#);
        has("a/b/c", r"a\/b\/c");
        has("<a&b>", r"\u003ca\u0026b\u003e");
        has("gr\u{fc}n", r"gr\u00fcn");
        has("gr\u{fc}n", r"gr\u00FCn");
        has("\u{1f33e}xx", r"\ud83c\udf3exx");
        has("a b/c+d", "a%20b%2Fc%2Bd");
        has("a b/c+d", "a+b%2fc%2bd");
        has("a b/c+d", "a%20b/c%2Bd");
        has("hunter2", "68756e74657232");
        has("a\"b$c'd", r#"a\\\"b\$c'd"#);
        has("a\"b$c'd", r#"a\"b$c'\''d"#);
        has("a\"b$c'd", r#"a\\\"b$c'd"#);
        has("a\"b$c'd", r#"a\"b$c'\\''d"#);
    }

    #[test]
    fn each_line_of_several_is_a_secret_of_its_own_and_short_ones_are_none() {
        let secret = "-----BEGIN-----\n  line two\nab\n-----END-----\n";
        for line in ["-----BEGIN-----", "  line two", "line two", "-----END-----"] {
            has(secret, line);
        }
        let forms = plain_forms(secret.as_bytes(), FORM_BYTES_MIN);
        assert!(!forms.contains(&b"ab"[..]) && forms.contains(secret.as_bytes()));
        assert!(forms.iter().all(|form| FORM_BYTES_MIN <= form.len()));
    }
}
