//! From a file's bytes to text: byte order marks, UTF-16, declared encodings; and cutting text short.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// How far into a file an XML declaration is looked for: it is the first thing in it.
const DECLARATION_BYTES: usize = 200;

/// The text of a report file, without a byte order mark. Bytes that are not of the encoding become
/// U+FFFD: one broken character in a test's output is no reason to lose the report.
///
/// # Errors
///
/// The label that the file declares, if nobody knows such an encoding.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let encoding = match Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None => guess(bytes)?,
    };
    // A declaration that says UTF-16 was read as single bytes, so it is not true.
    let is_readable = [UTF_16LE, UTF_16BE].contains(&encoding) && bytes.starts_with(b"<?xml");
    let encoding = if is_readable { UTF_8 } else { encoding };
    let (text, _) = encoding.decode_with_bom_removal(bytes);
    Ok(text)
}

/// The encoding of bytes that have no mark.
fn guess(bytes: &[u8]) -> Result<&'static Encoding, String> {
    match bytes {
        [b'<' | b'{' | b'[', 0, ..] => return Ok(UTF_16LE),
        [0, b'<' | b'{' | b'[', ..] => return Ok(UTF_16BE),
        _ => {}
    }
    let head = &bytes[..bytes.len().min(DECLARATION_BYTES)];
    let Some(label) = declared(head) else {
        return Ok(UTF_8);
    };
    // Latin-1 is what tools say that write what Windows calls 1252; the standard reads it so.
    Encoding::for_label(label)
        .or_else(|| {
            label
                .eq_ignore_ascii_case(b"cp1252")
                .then_some(WINDOWS_1252)
        })
        .ok_or_else(|| String::from_utf8_lossy(label).into_owned())
}

/// The value of `encoding` in an XML declaration.
fn declared(head: &[u8]) -> Option<&[u8]> {
    let rest = head.strip_prefix(b"<?xml")?;
    let end = rest.windows(2).position(|pair| pair == b"?>")?;
    let rest = &rest[..end];
    let name = b"encoding";
    let at = rest.windows(name.len()).position(|word| word == name)?;
    let rest = rest[at + name.len()..].trim_ascii_start();
    let rest = rest.strip_prefix(b"=")?.trim_ascii_start();
    let (quote, rest) = rest.split_first()?;
    let end = rest.iter().position(|byte| byte == quote)?;
    Some(&rest[..end])
}

/// At most the first `characters_max` characters.
pub(crate) fn cut(text: &str, characters_max: usize) -> &str {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The text without spaces around it, cut, or nothing if that is empty.
pub(crate) fn filled(text: &str, characters_max: usize) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| cut(text, characters_max).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn marks_and_declarations_say_the_encoding() {
        let text = "<?xml version=\"1.0\" encoding=\"utf-16\"?><a>é</a>";
        let marked = [vec![0xFF, 0xFE], utf16(text, u16::to_le_bytes)].concat();
        assert_eq!(decode(&marked).unwrap(), text);
        let marked = [vec![0xFE, 0xFF], utf16(text, u16::to_be_bytes)].concat();
        assert_eq!(decode(&marked).unwrap(), text);
        assert_eq!(decode(&utf16(text, u16::to_le_bytes)).unwrap(), text);
        assert_eq!(decode(&utf16(text, u16::to_be_bytes)).unwrap(), text);
        assert_eq!(
            decode(text.as_bytes()).unwrap(),
            text,
            "the declaration is not true"
        );
        assert_eq!(decode("\u{FEFF}[]".as_bytes()).unwrap(), "[]");
        let latin = b"<?xml version='1.0' encoding = 'ISO-8859-1'?><a>\xE9</a>";
        assert!(decode(latin).unwrap().ends_with("<a>é</a>"));
    }

    #[test]
    fn an_encoding_that_nobody_knows_is_named() {
        let unknown = b"<?xml version=\"1.0\" encoding=\"klingon\"?><a/>";
        assert_eq!(decode(unknown), Err("klingon".to_owned()));
    }

    #[test]
    fn broken_characters_do_not_lose_the_rest() {
        assert_eq!(decode(b"<a>\xFF</a>").unwrap(), "<a>\u{FFFD}</a>");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("häy", 2), "hä");
        assert_eq!(cut("häy", 3), "häy");
        assert_eq!(filled(" \n", 3), None);
        assert_eq!(filled(" hay ", 2).as_deref(), Some("ha"));
    }
}
