//! Masking: every form of every secret, found in a stream however it is cut into pieces, and replaced.
//!
//! Pure. Two automata read each byte: one looks for forms as they are, the other for base64, which skips
//! ends of line. What could be the begin of a form is held back until it is known.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    fmt,
    sync::Arc,
};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::{Automaton as _, StateID},
    nfa::contiguous::{Builder, NFA},
};

use super::forms::{FORM_BYTES_MIN, plain_forms, wrapped_forms};

/// What stands in the place of a secret, as CodeBuild has it.
pub(crate) const MASK: &[u8] = b"***";

/// Everything that is looked for.
pub(crate) struct Patterns {
    plain: Finder,
    /// For forms between whose bytes ends of line may stand.
    wrapped: Finder,
}

impl Patterns {
    /// The forms of secrets, each with the variable that it is named by. Values and lines of less than
    /// `value_bytes_min` bytes are not looked for. Large ones take a while: blocks.
    ///
    /// # Errors
    ///
    /// If they have more bytes than can be looked for.
    pub(crate) fn new<'a>(
        secrets: impl Iterator<Item = (&'a str, &'a [u8])>,
        value_bytes_min: usize,
    ) -> Result<Self, PatternsError> {
        let (mut plain, mut wrapped) = (BTreeMap::new(), BTreeMap::new());
        let mut bytes_of = BTreeMap::<&str, usize>::new();
        for (variable, secret) in secrets {
            if secret.len() < value_bytes_min {
                continue;
            }
            let mut add = |to: &mut BTreeMap<Vec<u8>, String>, forms: BTreeSet<Vec<u8>>| {
                for form in forms {
                    if let Entry::Vacant(vacant) = to.entry(form) {
                        *bytes_of.entry(variable).or_default() += vacant.key().len();
                        vacant.insert(variable.to_owned());
                    }
                }
            };
            add(&mut plain, plain_forms(secret, value_bytes_min));
            add(&mut wrapped, wrapped_forms(secret, value_bytes_min));
            check_bytes(&bytes_of)?;
        }
        Ok(Self {
            plain: Finder::new(plain)?,
            wrapped: Finder::new(wrapped)?,
        })
    }

    /// The bytes with every form of a secret replaced.
    pub(crate) fn masked(self: &Arc<Self>, bytes: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(Arc::clone(self));
        let mut out = Vec::with_capacity(bytes.len());
        masker.push(bytes, &mut out);
        masker.finish(&mut out);
        out
    }

    /// The variable of which a form is in the bytes; `None`: there is none.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<&str> {
        self.scan().feed(bytes)
    }

    /// Looks through a stream.
    pub(crate) fn scan(&self) -> Scan<'_> {
        Scan {
            patterns: self,
            plain: self.plain.start,
            wrapped: self.wrapped.start,
            wraps: 0,
        }
    }
}

/// How many bytes all forms may have together that are looked for. What finds them has some twenty times as many
/// bytes, and twice that while it is made; keys of 4,096 bits have some 200 KiB each.
const FORMS_BYTES_MAX: usize = 2 * 1024 * 1024;

fn check_bytes(bytes_of: &BTreeMap<&str, usize>) -> Result<(), PatternsError> {
    let total: usize = bytes_of.values().sum();
    let largest = bytes_of.iter().max_by_key(|&(_, bytes)| *bytes);
    match largest {
        Some((variable, _)) if FORMS_BYTES_MAX < total => Err(PatternsError::TooLarge {
            variable: (*variable).to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Why secrets cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternsError {
    /// They are too large: give the build smaller ones.
    #[error(
        "the secrets of the build are too large to be found wherever commands print them; the largest is that of the \
         variable {variable}"
    )]
    TooLarge {
        /// The one that has most of it.
        variable: String,
    },
    /// The library has limits of its own, far above [`FORMS_BYTES_MAX`].
    #[error("failed to make what finds secrets")]
    Build(#[from] aho_corasick::BuildError),
}

impl fmt::Debug for Patterns {
    /// Says nothing of what is looked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").finish_non_exhaustive()
    }
}

/// Whether a byte may stand anywhere within base64.
const fn is_wrap(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// How many ends of line may follow each other within base64: the two bytes of one. An empty line ends it, so
/// that nothing is held for as long as somebody prints ends of line.
const WRAPS_MAX: u8 = 2;

/// How many characters of base64 at the end of a line make it be held until the next one: fewer are in most
/// lines by chance, and who follows a log would see each line with the next. What of a form stands before such an
/// end of line is shown, all that follows is not.
const WRAPPED_CHARACTERS_MIN: usize = 4;

/// The begin of a form of so many bytes is replaced if a stream is interrupted in it, since the rest may follow.
const INTERRUPTED_BYTES_MIN: usize = FORM_BYTES_MIN;

/// Finds forms, one byte after another.
struct Finder {
    automaton: NFA,
    start: StateID,
    /// The variable of each form.
    variables: Vec<String>,
    /// How many of the last bytes are the begin of some form in each state, by state.
    depths: Vec<(StateID, u32)>,
}

impl Finder {
    fn new(forms: BTreeMap<Vec<u8>, String>) -> Result<Self, aho_corasick::BuildError> {
        let (forms, variables): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let automaton = Builder::new()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&forms)?;
        let start = |anchored| automaton.start_state(anchored);
        let begin = start(Anchored::Yes).expect("this automaton starts anywhere");
        let mut depths = Vec::new();
        for form in &forms {
            let mut state = begin;
            for (depth, &byte) in (1..).zip(form) {
                state = automaton.next_state(Anchored::Yes, state, byte);
                depths.push((state, depth));
            }
        }
        depths.sort_unstable();
        depths.dedup();
        depths.shrink_to_fit();
        Ok(Self {
            start: start(Anchored::No).expect("this automaton starts anywhere"),
            variables,
            depths,
            automaton,
        })
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.automaton.next_state(Anchored::No, state, byte)
    }

    /// The longest form that ends here: its length in bytes, and its variable.
    fn found(&self, state: StateID) -> Option<(usize, &str)> {
        if !self.automaton.is_match(state) {
            return None;
        }
        let matches = 0..self.automaton.match_len(state);
        let patterns = matches.map(|index| self.automaton.match_pattern(state, index));
        let longest = patterns.max_by_key(|&pattern| self.automaton.pattern_len(pattern))?;
        let length = self.automaton.pattern_len(longest);
        Some((length, &self.variables[longest.as_usize()]))
    }

    /// How many of the last bytes may be the begin of a form.
    fn depth(&self, state: StateID) -> usize {
        let found = self.depths.binary_search_by_key(&state, |&(of, _)| of);
        found.map_or(0, |at| self.depths[at].1 as usize)
    }
}

/// A look through a stream.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    patterns: &'a Patterns,
    plain: StateID,
    wrapped: StateID,
    /// How many ends of line came last.
    wraps: u8,
}

impl<'a> Scan<'a> {
    /// Looks at what comes next; the variable of the first form that ends in it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<&'a str> {
        let Patterns { plain, wrapped } = self.patterns;
        for &byte in bytes {
            self.plain = plain.next(self.plain, byte);
            if let Some((_, variable)) = plain.found(self.plain) {
                return Some(variable);
            }
            if is_wrap(byte) {
                self.wraps = self.wraps.saturating_add(1);
                if WRAPS_MAX < self.wraps {
                    self.wrapped = wrapped.start;
                }
                continue;
            }
            self.wraps = 0;
            self.wrapped = wrapped.next(self.wrapped, byte);
            if let Some((_, variable)) = wrapped.found(self.wrapped) {
                return Some(variable);
            }
        }
        None
    }
}

/// A run of bytes that is replaced, from and to a place in the stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    /// Whether what replaces it is written.
    is_written: bool,
}

/// Masks a stream.
pub(crate) struct Masker {
    patterns: Arc<Patterns>,
    plain: StateID,
    wrapped: StateID,
    /// How many ends of line came last.
    wraps: u8,
    /// What is not written yet.
    held: VecDeque<u8>,
    /// Where in the stream that starts.
    start: u64,
    /// Where the bytes are that the second automaton has read, of those that are held for it.
    places: VecDeque<u64>,
    /// What of it is replaced: in order, none over another.
    runs: VecDeque<Run>,
}

impl fmt::Debug for Masker {
    /// Says nothing of what is held, which may be the begin of a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}

impl Masker {
    /// At the start of a stream.
    pub(crate) fn new(patterns: Arc<Patterns>) -> Self {
        Self {
            plain: patterns.plain.start,
            wrapped: patterns.wrapped.start,
            wraps: 0,
            patterns,
            held: VecDeque::new(),
            start: 0,
            places: VecDeque::new(),
            runs: VecDeque::new(),
        }
    }

    /// Takes what comes next, and appends to `out` what is known not to be the begin of a secret. Forms that
    /// lie over each other are replaced once together.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.take(byte);
        }
        self.write(self.safe(), out);
    }

    /// Whether something is held back.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Appends to `out` what is left: nothing follows.
    fn finish(mut self, out: &mut Vec<u8>) {
        self.write(self.end(), out);
    }

    /// Appends to `out` what is left, since something else comes in between now, or nothing any more. Of a form
    /// that has begun neither what is here nor what may follow is shown.
    pub(crate) fn interrupt(&mut self, out: &mut Vec<u8>) {
        let (safe, end) = (self.safe(), self.end());
        if INTERRUPTED_BYTES_MIN as u64 <= end - safe {
            self.replace(safe, end);
        }
        self.write(end, out);
        self.places.clear();
        self.runs.clear();
    }

    fn end(&self) -> u64 {
        self.start + self.held.len() as u64
    }

    fn take(&mut self, byte: u8) {
        let place = self.end();
        self.held.push_back(byte);
        let Patterns { plain, wrapped } = &*self.patterns;
        self.plain = plain.next(self.plain, byte);
        let mut from = plain
            .found(self.plain)
            .map(|(length, _)| (place + 1).saturating_sub(length as u64));
        if is_wrap(byte) {
            self.wrap();
        } else {
            self.wraps = 0;
            self.places.push_back(place);
            self.wrapped = wrapped.next(self.wrapped, byte);
            let found = wrapped.found(self.wrapped);
            let in_wrapped = found.and_then(|(length, _)| self.last_place(length));
            from = match (from, in_wrapped) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        if let Some(from) = from {
            self.replace(from.max(self.start), place + 1);
        }
    }

    /// An end of line: base64 may go on in the next.
    fn wrap(&mut self) {
        self.wraps = self.wraps.saturating_add(1);
        let wrapped = &self.patterns.wrapped;
        if wrapped.depth(self.wrapped) < WRAPPED_CHARACTERS_MIN {
            self.places.clear();
        }
        if WRAPS_MAX < self.wraps {
            self.wrapped = wrapped.start;
            self.places.clear();
        }
    }

    /// Where the last `count` bytes of base64 begin, of those that are held for it; `None`: none are.
    fn last_place(&self, count: usize) -> Option<u64> {
        let first = self.places.len().saturating_sub(count);
        self.places.get(first).copied()
    }

    /// What lies between these places is replaced, together with what it lies over.
    fn replace(&mut self, start: u64, end: u64) {
        let mut run = Run {
            start,
            end,
            is_written: false,
        };
        while let Some(last) = self.runs.back()
            && run.start < last.end
        {
            run.start = run.start.min(last.start);
            run.end = run.end.max(last.end);
            run.is_written |= last.is_written;
            self.runs.pop_back();
        }
        self.runs.push_back(run);
    }

    /// Up to where nothing can become a part of a form that has not ended yet.
    fn safe(&self) -> u64 {
        let plain = self.patterns.plain.depth(self.plain) as u64;
        let wrapped = self.patterns.wrapped.depth(self.wrapped);
        let wrapped = (0 < wrapped).then(|| self.last_place(wrapped)).flatten();
        let plain = self.end().saturating_sub(plain).max(self.start);
        wrapped.map_or(plain, |wrapped| wrapped.min(plain))
    }

    /// Writes what lies before the place `until`, replaced where it has to be.
    fn write(&mut self, until: u64, out: &mut Vec<u8>) {
        while let Some(run) = self.runs.front_mut()
            && run.start < until
        {
            let run = *run;
            self.let_go(run.start, Some(&mut *out));
            if !run.is_written {
                out.extend_from_slice(MASK);
            }
            self.let_go(run.end.min(until), None);
            self.runs.pop_front();
            if until < run.end {
                self.runs.push_front(Run {
                    start: until,
                    is_written: true,
                    ..run
                });
                break;
            }
        }
        self.let_go(until, Some(out));
        while self.places.front().is_some_and(|place| *place < until) {
            self.places.pop_front();
        }
    }

    /// Takes what lies before the place `until` out of what is held, and appends it to `out`, if there is
    /// one.
    fn let_go(&mut self, until: u64, out: Option<&mut Vec<u8>>) {
        let count = until.saturating_sub(self.start);
        let count = usize::try_from(count).expect("what is held is in memory");
        let gone = self.held.drain(..count);
        match out {
            Some(out) => out.extend(gone),
            None => drop(gone),
        }
        self.start += count as u64;
    }
}

#[cfg(test)]
mod tests;
