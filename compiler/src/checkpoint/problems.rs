//! All differences between the tensors a family needs and those a checkpoint has.

use std::fmt;

/// What differs; each list is ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorProblems {
    /// Needed, not there: name and shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// There, neither needed nor known to be superfluous: name and shape.
    pub extra: Vec<(String, Vec<usize>)>,
    /// Of another shape: name, needed and found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Of an element type that weights do not have here: name and type.
    pub unsupported: Vec<(String, String)>,
    /// Found under two spellings of one name.
    pub duplicate: Vec<String>,
}

impl TensorProblems {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Orders each list by name.
    pub(super) fn sort(&mut self) {
        self.missing.sort();
        self.extra.sort();
        self.misshapen.sort();
        self.unsupported.sort();
        self.duplicate.sort();
    }
}

impl fmt::Display for TensorProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut line = |text: String| {
            let newline = if std::mem::take(&mut first) { "" } else { "\n" };
            write!(f, "{newline}  {text}")
        };
        for (name, shape) in &self.missing {
            line(format!("missing      {name} {shape:?}"))?;
        }
        for (name, shape) in &self.extra {
            line(format!("not expected {name} {shape:?}"))?;
        }
        for (name, needed, found) in &self.misshapen {
            line(format!("misshapen    {name}: needs {needed:?}, has {found:?}"))?;
        }
        for (name, dtype) in &self.unsupported {
            line(format!("unsupported  {name} is {dtype}; needs F32, F16 or BF16"))?;
        }
        for name in &self.duplicate {
            line(format!("duplicate    {name} is there under two names"))?;
        }
        Ok(())
    }
}
