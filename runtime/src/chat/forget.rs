//! What of a conversation is forgotten where the context cannot hold it: its oldest turns, but not the last pictures.
//!
//! A turn is a person's message and all that follows it up to the next one; what stands before the first turn stays. Once an answer might not
//! fit any more, enough is forgotten to fill half of the context, so that the next questions need not compute it all again. What was
//! forgotten once stays forgotten as long as the conversation begins in the same way: else it would come back with the next request, which
//! holds the whole conversation.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::prompt::{Line, Prompt, show};
use super::{Error, slots::Shown};
use crate::template::Role;

/// Lines of a conversation that are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Forgotten {
    lines: BTreeSet<usize>,
    /// Lines whose pictures went to another one.
    moved: Option<(Vec<usize>, usize)>,
    /// How many lines it is about, and what they said.
    begins: usize,
    fingerprint: u64,
}

impl Forgotten {
    /// Whether nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a conversation is the one that it is about, continued.
    pub(crate) fn is_of(&self, lines: &[Line]) -> bool {
        !self.is_empty() && lines.get(..self.begins).is_some_and(|begin| fingerprint(begin) == self.fingerprint)
    }

    /// Leaves a turn out; gives the lines that its pictures came from.
    fn leave_out(&mut self, turn: &[(usize, Line)]) -> Vec<usize> {
        let numbers: Vec<usize> = turn.iter().map(|(number, _)| *number).collect();
        self.lines.extend(&numbers);
        match self.moved.take_if(|(_, to)| numbers.contains(to)) {
            Some((from, _)) => from,
            None => numbers,
        }
    }

    fn is_about(&mut self, lines: &[Line]) {
        let moved = self.moved.iter().map(|(_, to)| *to);
        self.begins = self.lines.iter().copied().chain(moved).max().map_or(0, |last| last + 1);
        self.fingerprint = fingerprint(&lines[..self.begins.min(lines.len())]);
    }
}

fn fingerprint(lines: &[Line]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in lines {
        (line.message.role as u8).hash(&mut hasher);
        line.message.text.hash(&mut hasher);
        line.pictures.iter().for_each(|shown| shown.hash().hash(&mut hasher));
    }
    hasher.finish()
}

/// A conversation that the context can hold.
#[derive(Clone, Debug)]
pub(crate) struct Fitted {
    pub lines: Vec<Line>,
    pub prompt: Prompt,
    pub forgotten: Forgotten,
    /// Turns that were forgotten now.
    pub turns: usize,
}

/// Leaves out what was forgotten before, if it is of this conversation, and as many more of the oldest turns as it takes for `room`
/// positions. `build` makes the prompt of what is left.
///
/// # Errors
/// [`Error::TooLong`] where the last turn alone does not fit into the context; those of `build`.
pub(crate) fn fit(
    all: &[Line],
    before: &Forgotten,
    (context, room): (usize, usize),
    mut build: impl FnMut(&[Line]) -> Result<Prompt, crate::Error>,
) -> Result<Fitted, crate::Error> {
    let mut forgotten = if before.is_of(all) { before.clone() } else { Forgotten::default() };
    let mut turns = Turns::new(all, &forgotten);
    let (mut lines, mut prompt) = turns.prompt(&mut build)?;
    let (mut count, mut limit) = (0, room);
    while prompt.slots.len() > limit {
        let last = turns.turns.len().saturating_sub(1);
        let is_pictured = |turn: &Vec<(usize, Line)>| turn.iter().any(|(_, line)| line.pictured);
        let pictured = turns.turns.iter().rposition(is_pictured);
        let oldest = (0..last).find(|&turn| Some(turn) != pictured);
        match oldest {
            Some(turn) => {
                forgotten.leave_out(&turns.turns.remove(turn));
                count += 1;
                limit = context / 2;
            }
            None if prompt.slots.len() <= context => break,
            None if last > 0 => {
                // The pictures go with the question, if need be without what was said about them.
                let turn = turns.turns.remove(0);
                let from = forgotten.leave_out(&turn);
                count += 1;
                let pictures: Vec<Shown> = turn.iter().flat_map(|(_, line)| line.pictures.iter().cloned()).collect();
                if let Some((to, line)) = turns.turns.first_mut().and_then(|turn| turn.first_mut())
                    && !pictures.is_empty()
                {
                    line.pictures = pictures;
                    forgotten.moved = Some((from, *to));
                }
            }
            None if forgotten.moved.is_some() => {
                forgotten.moved = None;
                turns.turns.iter_mut().flatten().for_each(|(_, line)| line.pictures.clear());
            }
            None => return Err(Error::TooLong { tokens: prompt.slots.len(), context: context as u32 }.into()),
        }
        (lines, prompt) = turns.prompt(&mut build)?;
    }
    forgotten.is_about(all);
    Ok(Fitted { lines, prompt, forgotten, turns: count })
}

/// Lines with their numbers.
type Numbered = Vec<(usize, Line)>;

/// What is left of a conversation.
struct Turns {
    head: Numbered,
    turns: Vec<Numbered>,
}

impl Turns {
    fn new(all: &[Line], forgotten: &Forgotten) -> Turns {
        let (mut head, mut turns): (Numbered, Vec<Numbered>) = (Vec::new(), Vec::new());
        for (number, line) in all.iter().enumerate().filter(|(number, _)| !forgotten.lines.contains(number)) {
            let mut line = line.clone();
            if let Some((from, to)) = &forgotten.moved
                && *to == number
            {
                let moved = from.iter().filter_map(|&from| all.get(from));
                line.pictures = moved.flat_map(|line| line.pictures.iter().cloned()).collect();
            }
            match turns.last_mut() {
                _ if line.message.role == Role::User => turns.push(vec![(number, line)]),
                Some(turn) => turn.push((number, line)),
                None => head.push((number, line)),
            }
        }
        Turns { head, turns }
    }

    fn prompt(
        &self,
        build: &mut impl FnMut(&[Line]) -> Result<Prompt, crate::Error>,
    ) -> Result<(Vec<Line>, Prompt), crate::Error> {
        let lines = self.head.iter().chain(self.turns.iter().flatten());
        let mut lines: Vec<Line> = lines.map(|(_, line)| line.clone()).collect();
        show(&mut lines);
        let prompt = build(&lines)?;
        Ok((lines, prompt))
    }
}
