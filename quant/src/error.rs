//! What can be wrong with values, slices and formats.

use dwindle_schemes::{FloatType, Grouped};

/// Why values could not be encoded, decoded or converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight that is NaN or infinite.
    #[error(
        "row {row}, column {column}: the weight is {value}; the checkpoint is damaged or was saved while diverging"
    )]
    NotFinite {
        /// Row, counted from the first one given to the function (see [`Error::below`]).
        row: usize,
        /// Column of the row.
        column: usize,
        /// The weight.
        value: f32,
    },
    /// A group so large that its scale is infinite in the type of the stored scales.
    #[error(
        "row {row}, columns from {column}: the scale {scale:e} of this group is beyond {float}; use a scheme with f32 scales"
    )]
    ScaleOverflow {
        /// Row, counted from the first one given to the function (see [`Error::below`]).
        row: usize,
        /// First column of the group.
        column: usize,
        /// The scale before it was rounded.
        scale: f32,
        /// Type of the stored scales.
        float: FloatType,
    },
    /// A group whose minimum is infinite in the type of the stored scales.
    #[error(
        "row {row}, columns from {column}: the minimum {minimum:e} of this group is beyond {float}; use a scheme with f32 scales"
    )]
    MinimumOverflow {
        /// Row, counted from the first one given to the function (see [`Error::below`]).
        row: usize,
        /// First column of the group.
        column: usize,
        /// The minimum before it was rounded.
        minimum: f32,
        /// Type of the stored scales.
        float: FloatType,
    },
    /// A value that is not finite once it is stored.
    #[error("value {index} is {value:e}, which {float} cannot hold; use a scheme that stores this tensor in f32")]
    Unstorable {
        /// Index in the slice.
        index: usize,
        /// The value.
        value: f32,
        /// The type that was asked for.
        float: FloatType,
    },
    /// Slices whose lengths do not belong together.
    #[error("{what}: {found} given, {needed} needed")]
    Length {
        /// Which slice, in which unit.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits the others.
        needed: usize,
    },
    /// Not [valid](Grouped::is_valid).
    #[error("{} bits in groups of {} with zero {:?} are not a format: {:?} bits, groups of whole units and at most {} values, a code as zero", .0.bits, .0.group, .0.zero, Grouped::BITS, Grouped::MAX_GROUP)]
    Format(Grouped),
}

impl Error {
    /// The same error when `rows` rows lie above those that the function was given, as in a block of a matrix.
    pub fn below(mut self, rows: usize) -> Self {
        if let Error::NotFinite { row, .. } | Error::ScaleOverflow { row, .. } | Error::MinimumOverflow { row, .. } =
            &mut self
        {
            *row += rows;
        }
        self
    }
}

pub(crate) fn check_length(what: &'static str, found: usize, needed: usize) -> Result<(), Error> {
    if found == needed { Ok(()) } else { Err(Error::Length { what, found, needed }) }
}
