//! What stands at the positions of a sequence: tokens, and the rows of pictures in place of their placeholders.

use std::sync::Arc;

use dwindle_bundle::ImageInput;

use super::Error;
use crate::image::Prepared;
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

/// Tokens with each placeholder replaced by the rows of a picture: of `pictures[first..]`, in order.
pub(crate) fn expand(
    tokens: &[u32],
    input: Option<&ImageInput>,
    pictures: &[Arc<Prepared>],
    first: usize,
) -> Result<Vec<Slot>, Error> {
    let mut slots = Vec::with_capacity(tokens.len());
    let mut next = first;
    for &token in tokens {
        if input.is_some_and(|input| input.token == token) {
            if let Some(shown) = pictures.get(next) {
                let is_among_others = shown.is_among_others();
                let rows = 0..shown.blends().len();
                slots.extend(rows.map(|row| Slot::Picture { picture: next, row, is_among_others }));
            }
            next += 1;
        } else {
            slots.push(Slot::Token(token));
        }
    }
    if next != pictures.len() {
        let placeholder = input.map_or("", |input| &input.placeholder).to_owned();
        return Err(Error::Placeholders { found: next - first, pictures: pictures.len() - first, placeholder });
    }
    Ok(slots)
}

/// The row that stands at a slot.
pub(crate) fn row(slot: Slot, input: Option<&ImageInput>, pictures: &[Arc<Prepared>]) -> Row {
    match slot {
        Slot::Token(token) => Row::from(token),
        Slot::Picture { picture, row, .. } => {
            Row { token: input.map_or(0, |input| input.token), blend: pictures[picture].blends()[row] }
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

/// Shows pictures as they are seen alone or together, and says how many of the first `known` have changed.
pub(crate) fn show_together(pictures: &mut [Arc<Prepared>], known: usize) -> usize {
    let together = pictures.len() > 1;
    let mut changed = 0;
    for (number, picture) in pictures.iter_mut().enumerate() {
        let shown = picture.shown(together);
        if shown.is_among_others() != picture.is_among_others() {
            changed += usize::from(number < known);
            *picture = Arc::new(shown);
        }
    }
    changed
}

/// How many slots both begin with.
pub(crate) fn common(a: &[Slot], b: &[Slot]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Where `text` goes on after `said`: behind it, if it begins with it; else behind its last visible character, if the
/// two differ in white space only. Templates trim answers, and some end the prompt with other white space than they
/// put between role and answer later; neither is a reason to compute the answer again.
pub(crate) fn continuation<'a>(text: &'a str, said: &str) -> Option<&'a str> {
    if let Some(rest) = text.strip_prefix(said) {
        return Some(rest);
    }
    let visible = |(_, letter): &(usize, char)| !letter.is_whitespace();
    let mut letters = text.char_indices().filter(visible);
    let mut end = 0;
    for (_, wanted) in said.char_indices().filter(visible) {
        match letters.next() {
            Some((at, letter)) if letter == wanted => end = at + letter.len_utf8(),
            _ => return None,
        }
    }
    Some(&text[end..])
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

    #[test]
    fn texts_go_on_behind_what_was_said() {
        for (text, said, expected) in [
            ("user: Hi\nmodel: Hello.<end>", "user: Hi\nmodel: Hello.", Some("<end>")),
            ("user: Hi\nmodel: Hello.<end>", "user: Hi\nmodel: Hello. \n", Some("<end>")),
            ("user: Hi\nmodel: Hello.<end>", "user: Hi\nmodel:  Hello.", Some("<end>")),
            ("user: Hi\nmodel: \nHello.\n<end>", "user: Hi\nmodel:\nHello.", Some("\n<end>")),
            ("user: Hi\nmodel: <end>", "user: Hi\nmodel: <think>x</think>", None),
            ("user", "user: Hi", None),
            ("é <end>", "é", Some(" <end>")),
            ("é<end>", " é ", Some("<end>")),
        ] {
            assert_eq!(continuation(text, said), expected, "{said:?} in {text:?}");
        }
    }
}
