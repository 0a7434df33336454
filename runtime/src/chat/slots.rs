//! What stands at the positions of a sequence: tokens, and the rows of pictures in place of their placeholders.

use std::sync::Arc;

use dwindle_bundle::ImageInput;

use crate::image::{Blend, Prepared};
use crate::session::Row;

/// One position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Token(u32),
    /// A row of a picture, which is numbered within the chat.
    Picture {
        picture: usize,
        row: usize,
        /// [`Prepared::is_among_others`]: its rows differ then.
        is_among_others: bool,
    },
}

impl Slot {
    /// The token, where it is one.
    pub(crate) fn token(self) -> Option<u32> {
        if let Slot::Token(token) = self { Some(token) } else { None }
    }

    /// The number of the picture, where it is a row of one.
    pub(crate) fn picture(self) -> Option<usize> {
        if let Slot::Picture { picture, .. } = self { Some(picture) } else { None }
    }
}

/// A picture of the chat.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Unique in the chat.
    pub number: usize,
    pub prepared: Arc<Prepared>,
}

impl Shown {
    /// Takes the form in which it is seen alone, or beside others.
    pub(crate) fn show(&mut self, is_among_others: bool) {
        if self.prepared.is_among_others() != is_among_others {
            self.prepared = Arc::new(self.prepared.shown(is_among_others));
        }
    }

    /// Whether `cached` holds rows of another form of it.
    pub(crate) fn was_otherwise(&self, cached: &[Slot]) -> bool {
        let form = self.prepared.is_among_others();
        cached.iter().any(|slot| {
            matches!(slot, Slot::Picture { picture, is_among_others, .. } if *picture == self.number && *is_among_others != form)
        })
    }
}

/// Tokens with each placeholder replaced by the rows of a picture, in order, and the number of placeholders. Placeholders without a
/// picture are left out.
pub(crate) fn expand(tokens: &[u32], input: Option<&ImageInput>, pictures: &[Shown]) -> (Vec<Slot>, usize) {
    let mut slots = Vec::with_capacity(tokens.len());
    let mut found = 0;
    for &token in tokens {
        if input.is_some_and(|input| input.token == token) {
            if let Some(Shown { number: picture, prepared }) = pictures.get(found) {
                let (picture, is_among_others) = (*picture, prepared.is_among_others());
                let rows = 0..prepared.blends().len();
                slots.extend(rows.map(|row| Slot::Picture { picture, row, is_among_others }));
            }
            found += 1;
        } else {
            slots.push(Slot::Token(token));
        }
    }
    (slots, found)
}

/// The picture of this number; slots only hold numbers of pictures of their chat.
pub(crate) fn picture(number: usize, pictures: &[Shown]) -> Option<&Prepared> {
    pictures.iter().find(|shown| shown.number == number).map(|shown| &*shown.prepared)
}

/// The row that stands at a slot.
pub(crate) fn row(slot: Slot, input: Option<&ImageInput>, pictures: &[Shown]) -> Row {
    match slot {
        Slot::Token(token) => Row::from(token),
        Slot::Picture { picture: number, row, .. } => {
            let blend = picture(number, pictures).map_or(Blend::NONE, |prepared| prepared.blends()[row]);
            Row { token: input.map_or(0, |input| input.token), blend }
        }
    }
}

/// Cuts slots where a second picture would begin, and gives each part with the number of its picture: the rows of one
/// picture take the place of another's, so they are read before the next is encoded.
pub(crate) fn by_picture(slots: &[Slot]) -> impl Iterator<Item = (Option<usize>, &[Slot])> {
    let mut rest = slots;
    std::iter::from_fn(move || {
        let shown = rest.iter().find_map(|slot| slot.picture());
        let other = rest.iter().position(|slot| slot.picture().is_some_and(|picture| Some(picture) != shown));
        let (part, after) = rest.split_at(other.unwrap_or(rest.len()));
        rest = after;
        (!part.is_empty()).then_some((shown, part))
    })
}

/// How many slots both begin with.
pub(crate) fn common(a: &[Slot], b: &[Slot]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_one_picture_each() {
        let (text, row) = (Slot::Token(1), |picture, row| Slot::Picture { picture, row, is_among_others: false });
        let slots = [text, row(4, 0), row(4, 1), text, row(5, 0), row(6, 0), text];
        let parts: Vec<_> = by_picture(&slots).collect();
        assert_eq!(parts, [(Some(4), &slots[..4]), (Some(5), &slots[4..5]), (Some(6), &slots[5..])]);
        assert_eq!(by_picture(&slots[..1]).collect::<Vec<_>>(), [(None, &slots[..1])]);
        assert_eq!(by_picture(&[]).count(), 0);
    }
}
