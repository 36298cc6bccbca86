//! Making a script that fails short: lines are left out as long as it fails.

use super::{Failure, Mutant, Script, play};

/// How often a script is played to make it shorter: some seconds at most.
const PLAYS_MAX: usize = 600;

/// The shortest script that was found to fail, from one that does.
///
/// # Panics
///
/// If it does not.
pub fn shrunk(script: &Script, mutant: Option<Mutant>) -> Failure {
    let broken = play(script, mutant).broken.expect("the script fails");
    let mut failure = Failure {
        script: script.clone(),
        broken,
    };
    let mut plays = 0;
    let mut piece = script.len().div_ceil(2);
    while 0 < piece && plays < PLAYS_MAX {
        let mut start = 0;
        let mut is_shorter = false;
        while start < failure.script.len() && plays < PLAYS_MAX {
            let left_out = start..start + piece;
            let shorter = failure.script.kept(|place| !left_out.contains(&place));
            plays += 1;
            let run = play(&shorter, mutant);
            match run.broken.clone().filter(|_| run.is_failure(mutant)) {
                Some(broken) => {
                    failure = Failure {
                        script: shorter,
                        broken,
                    };
                    is_shorter = true;
                }
                None => start += piece,
            }
        }
        if !is_shorter || 1 < piece {
            piece /= 2;
        }
    }
    failure
}
