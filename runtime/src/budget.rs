//! Compares what a bundle's memory plan says with what the machine has left, before anything is allocated.
//!
//! Buffers in the machine's memory have to fit. Weights that are used where the bundle is mapped are pages of a file: the
//! kernel drops them when it must and reads them again when they are needed, which is slow but works. So they are no
//! reason to refuse, but one to warn. Nothing is known of memory that a GPU has for itself but the limits of
//! single buffers, which are compared when it is opened; there, failed allocations are told as they happen.

use dwindle_bundle::{Moment, Room, room};

use crate::Error;
use crate::device::Place;

/// Checks the worst `moment` of what is about to be loaded onto a device with its buffers at `place`.
///
/// # Errors
/// [`Error::Memory`] with what is needed, what there is, and what to do.
pub fn check(moment: &Moment, place: Place) -> Result<(), Error> {
    match room::memory() {
        Some(room) => check_against(moment, place, room),
        None => Ok(()),
    }
}

fn check_against(moment: &Moment, place: Place, room: Room) -> Result<(), Error> {
    // The process is there already.
    let beside = moment.beside_weights().saturating_sub(moment.process);
    let needed = match place {
        Place::Host => moment.weights.saturating_add(beside),
        Place::Mapped => beside,
        Place::Device => beside.saturating_sub(moment.states).saturating_sub(moment.work),
    };
    if needed > room.bytes {
        return Err(Error::Memory { needed, room, moment: Box::new(moment.clone()), place });
    }
    if place == Place::Mapped && moment.weights > room.bytes - needed {
        let (weights, left) = (moment.weights >> 20, (room.bytes - needed) >> 20);
        tracing::warn!(
            "{weights} MiB of weights do not fit into the {left} MiB that are left: they are read again and again, slowly; \
             compile with `--fit` for less memory"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn moment() -> Moment {
        Moment {
            what: "talker answers".to_owned(),
            weights: 800 << 20,
            states: 100 << 20,
            work: 20 << 20,
            tokenizers: 10 << 20,
            picture: 30 << 20,
            staging: 5 << 20,
            process: 40 << 20,
        }
    }

    #[track_caller]
    fn check(place: Place, mebibytes: u64, expected: Expect) {
        let room = Room { bytes: mebibytes << 20, limit: "of the control group's limit" };
        let told = check_against(&moment(), place, room).map_or_else(|error| error.to_string(), |()| "fits".to_owned());
        expected.assert_eq(&told);
    }

    #[test]
    fn what_has_to_fit_depends_on_where_buffers_are() {
        check(Place::Host, 965, expect!["fits"]);
        check(
            Place::Host,
            964,
            expect![
                "talker answers takes 965.0 MiB of memory besides this process, 964.0 MiB of the control group's limit are left: weights 800.0 MiB, caches 100.0 MiB, picture 30.0 MiB, work 20.0 MiB, tokenizers 10.0 MiB, staging 5.0 MiB; close other programs, raise the limit, or compile with a smaller `--context`, with `--scheme` of fewer bits, or with `--fit 1004MiB`"
            ],
        );
        check(Place::Mapped, 165, expect!["fits"]);
        check(
            Place::Mapped,
            164,
            expect![
                "talker answers takes 165.0 MiB of memory besides this process, 164.0 MiB of the control group's limit are left: caches 100.0 MiB, picture 30.0 MiB, work 20.0 MiB, tokenizers 10.0 MiB, staging 5.0 MiB; close other programs, raise the limit, or compile with a smaller `--context`, with `--scheme` of fewer bits, or with `--fit 204MiB`"
            ],
        );
        check(Place::Device, 45, expect!["fits"]);
        check(
            Place::Device,
            44,
            expect![
                "talker answers takes 45.0 MiB of memory besides this process, 44.0 MiB of the control group's limit are left: picture 30.0 MiB, tokenizers 10.0 MiB, staging 5.0 MiB; close other programs, raise the limit, or compile with a smaller `--context`, with `--scheme` of fewer bits, or with `--fit 84MiB`"
            ],
        );
    }
}
