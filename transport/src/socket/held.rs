//! Datagrams that are held back for a moment, so that more go in one system call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use quinn::udp::{EcnCodepoint, Transmit};

use crate::datagrams::{CALL_BYTES_MAX, TOGETHER_MAX};

/// How many datagrams Linux makes of one system call at most (`UDP_MAX_SEGMENTS`; 128 since Linux 6.9).
const CALL_DATAGRAMS_MAX: usize = 64;

/// Datagrams of one size for one address, in the order in which they came; the last may be shorter.
#[derive(Debug)]
pub(super) struct Held {
    to: SocketAddr,
    from: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    /// How large each is, in bytes.
    size: usize,
    /// All of them; empty: none is held.
    bytes: Vec<u8>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            to: (Ipv4Addr::UNSPECIFIED, 0).into(),
            from: None,
            ecn: None,
            size: 0,
            bytes: Vec::new(),
        }
    }
}

impl Held {
    /// What is held, as it is sent; `None`: nothing.
    pub(super) fn all(&self) -> Option<Transmit<'_>> {
        (!self.bytes.is_empty()).then_some(Transmit {
            destination: self.to,
            ecn: self.ecn,
            contents: &self.bytes,
            segment_size: Some(self.size),
            src_ip: self.from,
        })
    }

    /// What was held is sent.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Begins with `next`, where nothing is held: if quinn may have more of the same, which it then hands over at once,
    /// and there is room for it. Says whether it did.
    pub(super) fn begin(&mut self, next: &Transmit<'_>) -> bool {
        let Some(size) = next.segment_size.filter(|_| may_go_on(next)) else {
            return false;
        };
        if usize::from(CALL_BYTES_MAX) < 2 * next.contents.len() {
            return false;
        }
        self.to = next.destination;
        self.from = next.src_ip;
        self.ecn = next.ecn;
        self.size = size;
        self.bytes.extend_from_slice(next.contents);
        true
    }

    /// Adds `next` to what is held, if it is for the same address, of the same size, and fits, and nothing shorter came
    /// before it: the system cuts at multiples of the size. Says whether it did.
    pub(super) fn add(&mut self, next: &Transmit<'_>) -> bool {
        let fits = match next.segment_size {
            Some(size) => size == self.size,
            // The last may be shorter.
            None => next.contents.len() <= self.size,
        };
        let is_alike =
            (self.to, self.from) == (next.destination, next.src_ip) && self.ecn == next.ecn;
        let is_even = self.bytes.len().is_multiple_of(self.size);
        if !is_even || !fits || !is_alike || !self.has_room(next.contents.len()) {
            return false;
        }
        self.bytes.extend_from_slice(next.contents);
        true
    }

    /// Whether more may come behind `last`, which was added, and would fit.
    pub(super) fn waits_behind(&self, last: &Transmit<'_>) -> bool {
        may_go_on(last) && self.has_room(last.contents.len())
    }

    fn has_room(&self, more: usize) -> bool {
        let bytes = self.bytes.len() + more;
        bytes <= usize::from(CALL_BYTES_MAX) && bytes <= CALL_DATAGRAMS_MAX * self.size
    }
}

/// Whether quinn may have more to send than this: it has handed over as many as it does at once, all of one size.
fn may_go_on(transmit: &Transmit<'_>) -> bool {
    let whole = |size: usize| transmit.contents.len() == size * usize::from(TOGETHER_MAX);
    transmit.segment_size.is_some_and(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(contents: &[u8], size: usize, port: u16) -> Transmit<'_> {
        Transmit {
            destination: (Ipv4Addr::LOCALHOST, port).into(),
            ecn: None,
            contents,
            segment_size: (size < contents.len()).then_some(size),
            src_ip: None,
        }
    }

    #[test]
    fn ten_begin_and_what_is_like_them_is_added_until_a_call_is_full() {
        let ten = vec![7; 14_520];
        let ten = datagrams(&ten, 1_452, 1);
        let mut held = Held::default();
        assert!(held.all().is_none());
        assert!(held.begin(&ten));
        for _ in 0..3 {
            assert!(held.waits_behind(&ten));
            assert!(held.add(&ten));
        }
        // 58,080 bytes of 65,507.
        assert!(!held.waits_behind(&ten) && !held.add(&ten));
        let all = held.all().unwrap();
        assert_eq!(
            (all.contents.len(), all.segment_size),
            (58_080, Some(1_452))
        );
        held.clear();
        assert!(held.all().is_none());
    }

    #[test]
    fn no_more_are_added_than_the_system_makes_of_a_call() {
        let ten = vec![7; 1_000];
        let ten = datagrams(&ten, 100, 1);
        let mut held = Held::default();
        assert!(held.begin(&ten));
        let added = std::iter::repeat_with(|| held.add(&ten)).take_while(|added| *added);
        assert_eq!(added.count(), 5, "64 datagrams at most");
    }

    #[test]
    fn fewer_than_ten_and_those_of_which_no_more_fit_do_not_begin() {
        let bytes = vec![7; 65_000];
        for (length, size) in [
            (100, 100),
            (1_452 * 9, 1_452),
            (1_452 * 9 + 3, 1_452),
            (65_000, 6_500),
        ] {
            let few = datagrams(&bytes[..length], size, 1);
            let mut held = Held::default();
            assert!(!held.begin(&few), "{length} bytes by {size}");
            assert!(held.all().is_none());
        }
    }

    #[test]
    fn what_is_for_somebody_else_or_of_another_size_is_not_added_and_a_shorter_last_is() {
        let bytes = vec![7; 14_520];
        let mut held = Held::default();
        assert!(held.begin(&datagrams(&bytes, 1_452, 1)));
        assert!(!held.add(&datagrams(&bytes, 1_452, 2)));
        assert!(!held.add(&datagrams(&bytes[..12_000], 1_200, 1)));
        assert!(!held.add(&datagrams(&bytes[..1_453], 1_453, 1)));
        let marked = Transmit {
            ecn: Some(EcnCodepoint::Ect0),
            ..datagrams(&bytes, 1_452, 1)
        };
        assert!(!held.add(&marked));
        let last = datagrams(&bytes[..700], 1_452, 1);
        assert!(held.add(&last));
        assert!(!held.waits_behind(&last));
        // Behind it nothing would be cut where it begins, should it still be there.
        assert!(!held.add(&last) && !held.add(&datagrams(&bytes, 1_452, 1)));
        assert_eq!(held.all().unwrap().contents.len(), 14_520 + 700);
    }
}
