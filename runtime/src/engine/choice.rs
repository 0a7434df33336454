//! Which of the saved conversations a request continues, and which one makes room.
//!
//! The rule: the sequence that begins with most of the request's prompt is continued, unless that would throw away more than it keeps.
//! Then the least recently used sequence makes room, if there is an older one, and what both have in common is copied there. The last
//! answer may always be thrown away: asking for another one is no new conversation. So a request for a title, which shares little with the chat
//! it is about, does not evict it; and a request that shares all of it and goes on otherwise is cut off by the chat's next turn alone.

/// A sequence as one request sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its positions.
    pub cached: usize,
    /// How many of them the prompt begins with.
    pub shared: usize,
    /// How many of them are its last answer.
    pub answer: usize,
    /// When it was last used; 0: never.
    pub used: u64,
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
    let lost = |candidate: &Candidate| candidate.cached - candidate.shared;
    let best = (0..candidates.len())
        .min_by_key(|&slot| {
            let candidate = &candidates[slot];
            (std::cmp::Reverse(candidate.shared), lost(candidate), candidate.used)
        })
        .unwrap_or(0);
    let Some(found) = candidates.get(best) else { return Choice { slot: 0, from: None } };
    // The last position of a prompt is never kept, for its logits.
    let keeps_most = lost(found) <= found.answer + 1 || found.shared >= lost(found);
    let oldest = (0..candidates.len()).min_by_key(|&slot| candidates[slot].used).unwrap_or(best);
    if keeps_most || oldest == best {
        return Choice { slot: best, from: None };
    }
    let is_worth_copying = found.shared >= candidates[oldest].shared + LEAST_COPIED;
    Choice { slot: oldest, from: is_worth_copying.then_some(best) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Candidate = Candidate { cached: 0, shared: 0, answer: 0, used: 0 };

    #[track_caller]
    fn check(candidates: &[[usize; 4]], slot: usize, from: Option<usize>) {
        let candidates: Vec<Candidate> = candidates
            .iter()
            .map(|&[cached, shared, answer, used]| Candidate { cached, shared, answer, used: used as u64 })
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
}
