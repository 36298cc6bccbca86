//! How it is told why a dependency cache was not there, and what was.

use super::{
    answers::cache_use,
    cache::uses,
    json_line, out,
    table::Table,
    text::{at, bytes},
};
use crate::{
    command::{Changes, Explanation, Lookup, Near},
    error::CommandError,
};

/// `grange cache explain`, of one key.
pub(crate) fn explained(explanation: &Explanation, json: bool) -> Result<(), CommandError> {
    if json {
        return json_line(explanation);
    }
    out::print(&text(explanation))
}

fn text(explanation: &Explanation) -> String {
    let key = shown(&explanation.key);
    let looked = explanation.looked.as_ref();
    let mut text = looked.map_or_else(String::new, |looked| looked_for(&key, looked));
    text += &match explanation.found.len() {
        0 => format!("{key} is not there now\n"),
        1 => format!("{key} is there now\n"),
        count => format!("{key} is there now, for {count} lists of paths\n"),
    };
    text += &uses(&explanation.uses);
    let mut table = Table::new(["", "PROJECT", "PATHS", "KEY", "SAME", "SIZE", "USED"]);
    let found = explanation.found.iter().map(|near| ("there", near));
    let nearest = explanation.nearest.iter().map(|near| ("near", near));
    for (how, near) in found.clone().chain(nearest.clone()) {
        table.row(row(how, near, &explanation.key));
    }
    text += &table.text();
    for (_, near) in found.chain(nearest) {
        if let Some(since) = &near.changes {
            text += &changes(&near.key, since);
        }
    }
    text
}

/// An entry, beside the key that was looked for.
fn row(how: &str, near: &Near, key: &str) -> [String; 7] {
    [
        how.to_owned(),
        near.project.clone(),
        near.version.clone(),
        near.key.clone(),
        format!("{} of {} bytes", near.shared, key.len()),
        bytes(near.summary.bytes),
        at(near.summary.used),
    ]
}

/// A key for people.
fn shown(key: &str) -> String {
    match key {
        "" => "the project's entry without a key".to_owned(),
        key => format!("`{key}`"),
    }
}

/// Who has looked for a key, how, and what came of it.
fn looked_for(key: &str, looked: &Lookup) -> String {
    let unit = looked.unit.as_ref();
    let unit = unit.map_or_else(String::new, |unit| format!(", {unit}"));
    let fallbacks: Vec<_> = looked.fallbacks.iter().map(|key| shown(key)).collect();
    let fallbacks = match &fallbacks[..] {
        [] => String::new(),
        keys => format!(", then for one that begins with {}", keys.join(" or ")),
    };
    let saved = if looked.saved {
        "; it saved one when it was done"
    } else {
        ""
    };
    format!(
        "build {} ({}{unit}) looked for {key}{fallbacks}: {}{saved}\n",
        looked.build,
        looked.number,
        cache_use(looked.what),
    )
}

/// Which files have changed since an entry was saved.
fn changes(key: &str, changes: &Changes) -> String {
    let mut text = format!("since {} was saved:\n", shown(key));
    let mut add = |files: &[String], none: &str, of: &str| {
        if files.is_empty() {
            text += &format!("  {none}\n");
        }
        for file in files {
            // A name may hold anything, also what moves the cursor.
            text += &format!("  {}{of}\n", file.escape_debug());
        }
    };
    match &changes.inputs {
        None => add(&changes.others, "no file of the source has changed", ""),
        Some(inputs) => {
            let none = "no file that the key is made from has changed";
            add(inputs, none, " (the key is made from it)");
            add(&changes.others, "no other file has changed", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use protocol::{job::CacheUseKind, message::cache::EntrySummary, time::WallTime};

    use super::*;

    fn near(key: &str, changes: Changes) -> Near {
        Near {
            project: "app".to_owned(),
            version: "v".to_owned(),
            key: key.to_owned(),
            shared: 4,
            summary: EntrySummary {
                written: WallTime(0),
                used: WallTime(0),
                bytes: 2048,
                chunks: 1,
            },
            changes: Some(changes),
        }
    }

    #[test]
    fn it_is_told_who_looked_for_what_and_what_has_changed_what_the_key_is_made_from_first() {
        let explanation = Explanation {
            key: "npm-2".to_owned(),
            looked: Some(Lookup {
                build: "b".to_owned(),
                number: "app#7".to_owned(),
                unit: Some("linux".to_owned()),
                fallbacks: vec!["npm-".to_owned(), "n".to_owned()],
                what: CacheUseKind::Missed,
                saved: true,
            }),
            found: Vec::new(),
            uses: Vec::new(),
            nearest: vec![
                near(
                    "npm-1",
                    Changes {
                        inputs: Some(vec!["changed lock".to_owned()]),
                        others: Vec::new(),
                    },
                ),
                near(
                    "",
                    Changes {
                        inputs: None,
                        others: vec!["added a\u{1b}[A".to_owned()],
                    },
                ),
            ],
        };
        let expected = "\
build b (app#7, linux) looked for `npm-2`, then for one that begins with `npm-` or `n`: not there; it saved one when it was done
`npm-2` is not there now
      PROJECT  PATHS  KEY    SAME          SIZE     USED
near  app      v      npm-1  4 of 5 bytes  2.0 KiB  1970-01-01T00:00:00Z
near  app      v             4 of 5 bytes  2.0 KiB  1970-01-01T00:00:00Z
since `npm-1` was saved:
  changed lock (the key is made from it)
  no other file has changed
since the project's entry without a key was saved:
  added a\\u{1b}[A
";
        assert_eq!(text(&explanation), expected);
    }
}
