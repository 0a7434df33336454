//! What stands at the positions of a sequence: tokens, and the rows of pictures in place of their placeholders.

use std::sync::Arc;

use dwindle_bundle::ImageInput;

use crate::image::{self, Blend, Outline, Picture, PictureHash, Prepared};
use crate::sequence::Row;

/// One position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Token(u32),
    /// A row of a picture.
    Picture {
        picture: PictureHash,
        row: u32,
        /// Whether it is seen as one of several: its rows differ then.
        is_among_others: bool,
    },
}

impl Slot {
    /// The token, where it is one.
    pub(crate) fn token(self) -> Option<u32> {
        if let Slot::Token(token) = self { Some(token) } else { None }
    }

    /// The picture, where it is a row of one.
    pub(crate) fn picture(self) -> Option<PictureHash> {
        if let Slot::Picture { picture, .. } = self { Some(picture) } else { None }
    }
}

/// A picture of a prompt, not prepared for the vision tower before its rows are needed.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    picture: Arc<Picture>,
    outline: Outline,
    is_among_others: bool,
}

impl Shown {
    /// A picture that is shown alone.
    pub(crate) fn new(picture: Arc<Picture>, input: &ImageInput) -> Result<Shown, image::Error> {
        let outline = Outline::new(&picture, input)?;
        Ok(Shown { picture, outline, is_among_others: false })
    }

    pub(crate) fn hash(&self) -> PictureHash {
        self.picture.hash()
    }

    /// Takes the form in which it is seen alone, or beside others.
    pub(crate) fn show(&mut self, is_among_others: bool) {
        self.is_among_others = is_among_others && self.outline.is_otherwise_among_others();
    }

    pub(crate) fn blends(&self) -> &[Blend] {
        self.outline.blends(self.is_among_others)
    }

    /// The picture as the vision tower reads it.
    pub(crate) fn prepare(&self, input: &ImageInput) -> Result<Prepared, image::Error> {
        Ok(Prepared::new(&self.picture, input)?.shown(self.is_among_others))
    }

    /// Whether `cached` holds rows of another form of it.
    pub(crate) fn was_otherwise(&self, cached: &[Slot]) -> bool {
        let form = self.is_among_others;
        cached.iter().any(|slot| {
            matches!(slot, Slot::Picture { picture, is_among_others, .. } if *picture == self.hash() && *is_among_others != form)
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
            if let Some(shown) = pictures.get(found) {
                let (picture, is_among_others) = (shown.hash(), shown.is_among_others);
                let rows = 0..shown.blends().len() as u32;
                slots.extend(rows.map(|row| Slot::Picture { picture, row, is_among_others }));
            }
            found += 1;
        } else {
            slots.push(Slot::Token(token));
        }
    }
    (slots, found)
}

/// The picture of this hash; the slots of a prompt only hold those of its pictures.
pub(crate) fn picture(hash: PictureHash, pictures: &[Shown]) -> Option<&Shown> {
    pictures.iter().find(|shown| shown.hash() == hash)
}

/// The row that stands at a slot.
pub(crate) fn row(slot: Slot, input: Option<&ImageInput>, pictures: &[Shown]) -> Row {
    match slot {
        Slot::Token(token) => Row::from(token),
        Slot::Picture { picture: hash, row, .. } => {
            let blend = picture(hash, pictures).and_then(|shown| shown.blends().get(row as usize));
            Row { token: input.map_or(0, |input| input.token), blend: blend.copied().unwrap_or(Blend::NONE) }
        }
    }
}

/// Cuts slots where another picture would begin, and gives each part with the hash of its picture: the rows of one
/// picture take the place of another's, so they are read before the next is encoded.
pub(crate) fn by_picture(slots: &[Slot]) -> impl Iterator<Item = (Option<PictureHash>, &[Slot])> {
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
        let text = Slot::Token(1);
        let row = |picture, row| Slot::Picture { picture: PictureHash(picture), row, is_among_others: false };
        let slots = [text, row(4, 0), row(4, 1), text, row(5, 0), row(6, 0), text];
        let parts: Vec<_> = by_picture(&slots).collect();
        assert_eq!(
            parts,
            [
                (Some(PictureHash(4)), &slots[..4]),
                (Some(PictureHash(5)), &slots[4..5]),
                (Some(PictureHash(6)), &slots[5..]),
            ]
        );
        assert_eq!(by_picture(&slots[..1]).collect::<Vec<_>>(), [(None, &slots[..1])]);
        assert_eq!(by_picture(&[]).count(), 0);
    }
}
