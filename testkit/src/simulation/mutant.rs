//! Mutants: ways in which the scheduler, or the shell around it, could be wrong. Each has to be caught.

/// Something that is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutant {
    /// A renewal that comes after the end of its lease is granted.
    RenewAfterExpiry,
    /// Effects leave before the facts behind them are durable.
    EffectBeforeSync,
    /// A result that is said again is taken again.
    DuplicateTaken,
    /// A result under a lease that was lost counts for the attempt that runs now.
    LateResultTaken,
    /// A result is taken from whoever says it.
    ForeignResultTaken,
    /// A lease ends at the coordinator when it ends at a worker whose clock is right.
    FenceWithoutMargin,
    /// A job runs when what it needs has ended, however.
    EdgeAcceptsAnything,
    /// After a start leases end at once.
    StartWithoutFence,
    /// After a start leases never end.
    StartForgetsLeases,
    /// Renewals are answered, but the lease is not put off.
    AnswerWithoutRenewal,
    /// A lost attempt lets its whole unit run again.
    StoredRunsAgain,
    /// A stop ends attempts at once, and does not wait for their workers.
    StopEndsAttempts,
    /// A state that is put beside the journal lacks the last decision.
    StateTooOld,
    /// Leases are not journalled.
    GrantNotJournalled,
    /// A phase that must not run twice starts, and nobody takes note of it.
    BeginNotNoted,
    /// What a worker runs is taken back when its connection is lost.
    NotNamedIsTakenBack,
    /// A fault lets its whole unit run again, as if its state were lost.
    FaultLosesState,
    /// A worker is taken to have one more slot than it has.
    SlotTooMany,
    /// Nobody hears that a worker leaves.
    LeavingNotHeard,
    /// The units that are kept on a worker start again as soon as its connection is lost.
    GoneAtOnce,
    /// Who was told that it may leave is forgotten with its connection, whether or not it has heard of it.
    DrainForgotten,
    /// A fault is taken to have come so long ago that nobody is put aside for it.
    NotPutAside,
    /// What comes of the log of an attempt does not count.
    HeardNotHeard,
    /// An attempt counts as begun as soon as it was given.
    BegunWhenGiven,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::RenewAfterExpiry,
        Self::EffectBeforeSync,
        Self::DuplicateTaken,
        Self::LateResultTaken,
        Self::ForeignResultTaken,
        Self::FenceWithoutMargin,
        Self::EdgeAcceptsAnything,
        Self::StartWithoutFence,
        Self::StartForgetsLeases,
        Self::AnswerWithoutRenewal,
        Self::StoredRunsAgain,
        Self::StopEndsAttempts,
        Self::StateTooOld,
        Self::GrantNotJournalled,
        Self::BeginNotNoted,
        Self::NotNamedIsTakenBack,
        Self::FaultLosesState,
        Self::SlotTooMany,
        Self::LeavingNotHeard,
        Self::GoneAtOnce,
        Self::DrainForgotten,
        Self::NotPutAside,
        Self::HeardNotHeard,
        Self::BegunWhenGiven,
    ];

    /// The rules that it has to break, one of them, by words that only they have: that anything else goes
    /// wrong with it would prove nothing about them.
    pub const fn breaks(self) -> &'static [&'static str] {
        match self {
            Self::RenewAfterExpiry | Self::StartForgetsLeases => &["is out, and it is"],
            Self::EffectBeforeSync => &[
                "which is not out",
                "is said to be taken, and is not durable",
                "is said to have ended",
            ],
            Self::DuplicateTaken => &["and was out for None"],
            Self::LateResultTaken | Self::ForeignResultTaken | Self::StopEndsAttempts => {
                &["and still"]
            }
            Self::FenceWithoutMargin
            | Self::StartWithoutFence
            | Self::AnswerWithoutRenewal
            | Self::NotNamedIsTakenBack => {
                &["is given up, and w", "and still", "is given back, and runs"]
            }
            Self::EdgeAcceptsAnything => &["is to run, but"],
            Self::StoredRunsAgain | Self::FaultLosesState => &["and its snapshots are there"],
            Self::StateTooOld => &["durable records", "facts do not fit each other"],
            Self::GrantNotJournalled => {
                &["which is not out", "facts do not fit", "was out for None"]
            }
            Self::BeginNotNoted => &["which must not run twice, again"],
            Self::SlotTooMany => &["more than it has slots"],
            Self::LeavingNotHeard => &["leaves, and gets", "is there for ever"],
            Self::GoneAtOnce => &["and nothing happened to"],
            Self::DrainForgotten => &["drains, and gets"],
            Self::NotPutAside => &["was put aside, and gets"],
            Self::HeardNotHeard => &["and is not renewed"],
            Self::BegunWhenGiven => &["nothing was heard of"],
        }
    }
}
