//! Which of the saved conversations a request continues, and which one makes room.
//!
//! The rule: the sequence that begins with most of the request's prompt is continued, unless that would throw away turns of a
//! conversation that went on before, or more than it keeps. Then another sequence makes room, and what both have in common is copied
//! there: the least recently used one that never went on, else the least recently used one. The last answer may always be thrown
//! away: asking for another one is no new conversation. So a request for a title, whether it shares little of the chat that it is
//! about or all but the last turn, does not evict it, and the next such request takes the place of the last one.

/// A sequence as one request sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its positions.
    pub cached: usize,
    /// How many of them the prompt begins with.
    pub shared: usize,
    /// How many of them are its last answer.
    pub answer: usize,
    /// Whether it is a conversation of several turns, each of which went on from the one before.
    pub went_on: bool,
    /// When it was last used; 0: never.
    pub used: u64,
}

impl Candidate {
    /// Positions that the prompt does not have.
    fn lost(&self) -> usize {
        self.cached - self.shared
    }

    /// Whether the prompt goes on from it, or asks for another answer.
    pub fn goes_on(&self) -> bool {
        // The last position of a prompt is never kept, for its logits.
        self.cached > 0 && self.lost() <= self.answer + 1
    }
}

/// The sequence to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub slot: usize,
    /// Another one, whose beginning is copied into it.
    pub from: Option<usize>,
}

/// Fewer positions are computed rather than copied.
const LEAST_COPIED: usize = 16;

/// Chooses among candidates, of which there is at least one.
pub(crate) fn choose(candidates: &[Candidate]) -> Choice {
    let best = (0..candidates.len())
        .min_by_key(|&slot| {
            let candidate = &candidates[slot];
            (std::cmp::Reverse(candidate.shared), candidate.lost(), candidate.used)
        })
        .unwrap_or(0);
    let Some(found) = candidates.get(best) else { return Choice { slot: 0, from: None } };
    let keeps_most = found.goes_on() || !found.went_on && found.shared >= found.lost();
    let age = |&slot: &usize| (candidates[slot].went_on, candidates[slot].used);
    let other = (0..candidates.len()).filter(|&slot| slot != best).min_by_key(age);
    // What never went on makes room before what did, and then what was used before.
    let other = other.filter(|slot| age(slot) < age(&best));
    let Some(other) = other.filter(|_| !keeps_most) else { return Choice { slot: best, from: None } };
    let is_worth_copying = found.shared >= candidates[other].shared + LEAST_COPIED;
    Choice { slot: other, from: is_worth_copying.then_some(best) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Candidate = Candidate { cached: 0, shared: 0, answer: 0, went_on: false, used: 0 };

    /// Candidates that never went on.
    #[track_caller]
    fn check(candidates: &[[usize; 4]], slot: usize, from: Option<usize>) {
        let all: Vec<[usize; 5]> = candidates.iter().map(|&[a, b, c, d]| [a, b, c, d, 0]).collect();
        check_all(&all, slot, from);
    }

    /// Candidates: cached, shared, answer, used, whether it went on.
    #[track_caller]
    fn check_all(candidates: &[[usize; 5]], slot: usize, from: Option<usize>) {
        let candidates: Vec<Candidate> = candidates
            .iter()
            .map(|&[cached, shared, answer, used, went_on]| Candidate {
                cached,
                shared,
                answer,
                went_on: went_on == 1,
                used: used as u64,
            })
            .collect();
        assert_eq!(choose(&candidates), Choice { slot, from }, "{candidates:?}");
    }

    #[test]
    fn a_conversation_goes_on_where_it_is() {
        check(&[[0, 0, 0, 0]], 0, None);
        check(&[[100, 100, 20, 5], [0, 0, 0, 0]], 0, None);
        check(&[[100, 4, 20, 5], [90, 90, 20, 3]], 1, None);
        // Another answer to the same question, however long the first one was.
        check(&[[500, 99, 400, 5], [0, 0, 0, 0]], 0, None);
        // One that goes on otherwise after most of it.
        check(&[[500, 300, 10, 5], [0, 0, 0, 0]], 0, None);
        // With nowhere else to go.
        check(&[[500, 3, 10, 5]], 0, None);
        assert_eq!(choose(&[FREE, FREE]), Choice { slot: 0, from: None });
    }

    #[test]
    fn what_shares_little_goes_elsewhere() {
        // To a free one, or to the least recently used.
        check(&[[2000, 5, 10, 5], [0, 0, 0, 0]], 1, None);
        check(&[[2000, 5, 10, 5], [800, 5, 10, 3], [900, 5, 10, 4]], 1, None);
        check(&[[2000, 5, 10, 3], [800, 5, 10, 5]], 0, None);
        check(&[[2000, 0, 10, 3], [800, 0, 10, 5]], 0, None);
        // With what both have in common.
        check(&[[2000, 500, 10, 5], [0, 0, 0, 0]], 1, Some(0));
        check(&[[2000, 500, 10, 5], [800, 490, 10, 3]], 1, None);
        // The one to be copied is the oldest: it is cut.
        check(&[[2000, 500, 10, 3], [800, 5, 10, 5]], 0, None);
    }

    #[test]
    fn a_side_request_does_not_cut_a_conversation() {
        // It shares all but the last turn: a copy goes to a free sequence, or takes the place of what never went on.
        check_all(&[[2160, 2077, 32, 5, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], 1, Some(0));
        check_all(&[[2160, 2077, 32, 5, 1], [900, 4, 10, 3, 1], [2100, 5, 10, 4, 0]], 2, Some(0));
        // The last one's copy is as good as what is shared.
        check_all(&[[2160, 2077, 32, 5, 1], [900, 4, 10, 3, 1], [2100, 2077, 10, 6, 0]], 2, None);
        // Of conversations that went on, the oldest makes room, unless it is the one that is asked about.
        check_all(&[[2160, 2077, 32, 5, 1], [900, 4, 10, 3, 1]], 1, Some(0));
        check_all(&[[2160, 2077, 32, 3, 1], [900, 4, 10, 5, 1]], 0, None);
        check_all(&[[2160, 2077, 32, 3, 1]], 0, None);
        // The conversation itself goes on where it is.
        check_all(&[[2160, 2160, 32, 5, 1], [2100, 2077, 10, 6, 0]], 0, None);
    }
}
