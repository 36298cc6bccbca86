//! How large datagrams are, how they go out, and how often they are acknowledged.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest datagram that is usual, in bytes: ten of them fit in one system call, and loopback and networks for
/// 9,000 bytes carry it. What a path carries is found by probing, from 1,200 bytes up, to within 20 bytes.
const DATAGRAM_BYTES_MAX: u16 = 6_500;
/// The smallest that the largest datagram may be, in bytes: every path of QUIC carries it.
const DATAGRAM_BYTES_MIN: u16 = 1_200;
/// How many datagrams quinn hands over at once; as many of these tens as fit go in one system call (GSO).
pub(crate) const TOGETHER_MAX: u16 = 10;
/// What one system call sends at most over IPv4, in bytes, headers left out. More is lost without an error.
pub(crate) const CALL_BYTES_MAX: u16 = 65_507;
/// How many datagrams a receiver takes without acknowledging them: quinn's own benchmark's choice; every
/// acknowledgement costs both sides a datagram.
const UNACKNOWLEDGED_MAX: u32 = 10;
/// How long a receiver may wait for one more than that. A first flight of fewer datagrams would otherwise wait for
/// the usual 25 ms.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(5);

/// How datagrams are cut, sent and acknowledged. The default is for all networks; benchmarks measure others beside
/// it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Datagrams {
    /// How large they are at most, in bytes, both ways. What a path carries is found out all the same.
    pub bytes_max: u16,
    /// Whether this side sends several in one system call (GSO), where the system can.
    pub go_together: bool,
    /// How many the other side takes without acknowledging them; 1 is what RFC 9000 says.
    pub unacknowledged_max: u32,
    /// How long the other side may wait for one more than that; 25 ms is what RFC 9000 says.
    pub acknowledge_within: Duration,
}

impl Datagrams {
    /// What is usual, but of at most `bytes`: for paths that lose larger ones without a word.
    pub const fn up_to(bytes: u16) -> Self {
        Self {
            bytes_max: bytes,
            go_together: true,
            unacknowledged_max: UNACKNOWLEDGED_MAX,
            acknowledge_within: ACKNOWLEDGE_WITHIN,
        }
    }

    /// How large the largest that is tried is, in bytes: as was asked for, as far as QUIC and one system call allow.
    pub fn bytes(self) -> u16 {
        let most = match self.go_together {
            true => CALL_BYTES_MAX / TOGETHER_MAX,
            false => CALL_BYTES_MAX,
        };
        self.bytes_max.clamp(DATAGRAM_BYTES_MIN, most)
    }
}

impl Default for Datagrams {
    fn default() -> Self {
        Self::up_to(DATAGRAM_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together_fits_in_one_system_call_and_what_is_usual_is_not_cut() {
        let usual = Datagrams::default();
        assert_eq!(usual.bytes(), DATAGRAM_BYTES_MAX);
        for (asked, together, alone) in [
            (0, 1_200, 1_200),
            (1_452, 1_452, 1_452),
            (16_000, 6_550, 16_000),
            (u16::MAX, 6_550, 65_507),
        ] {
            let one = Datagrams::up_to(asked);
            assert_eq!(one.bytes(), together);
            assert!(u32::from(one.bytes()) * u32::from(TOGETHER_MAX) <= u32::from(CALL_BYTES_MAX));
            let one = Datagrams {
                go_together: false,
                ..one
            };
            assert_eq!(one.bytes(), alone);
        }
    }
}
